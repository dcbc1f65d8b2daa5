"""Disks that fill up and folders that may not be touched: the cause is named, and nothing half is left."""

import subprocess
from pathlib import Path

import pytest
import torch

from servers.store import Store, convert
from tests.conftest import LITPORT
from tests.servers.store.conftest import (
    CLOSED,
    REPOSITORY,
    Index,
    Pull,
    fill,
    noise,
    obedient,
    pull,
    small_disk,
    weights,
)
from tests.servers.store.test_wheel import MODEL, pickle_bytes
from tests.services.hub import Hub, Repository

FULL = "is full; free some space and pull again"


def test_a_disk_that_fills_up_during_a_download_is_named_and_the_pull_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["org/big"] = Repository({"config.json": b"{}", "model.safetensors": weights(25_000_000)})
    hub.stall_after_bytes = 12_000_000
    with small_disk(tmp_path / "disk", 40_000_000) as disk:
        with Pull("org/big", disk, HF_ENDPOINT=hub.url) as running:
            running.until("done_bytes", at_least=10_000_000)
            fill(disk)
            hub.go_on.set()
            error = running.result()["error"]
        assert error == f"org/big: the disk of {disk / 'models'} {FULL}"
        assert running.process.returncode == 1
        assert Store(disk).list() == []
        (disk / "filler").unlink()
        path = Path(pull("org/big", disk, HF_ENDPOINT=hub.url).events[-1]["path"])
        assert (path / "model.safetensors").read_bytes() == weights(25_000_000)


def test_a_disk_that_pip_fills_is_named_and_left_as_it_was(index: Index, tmp_path: Path) -> None:
    index.add("tiny", "1.0", {**MODEL, "tiny/more.bin": noise(5_000_000)})
    with small_disk(tmp_path / "disk", 4_000_000) as disk:
        error = pull("pypi:tiny==1.0", disk).events[-1]["error"]
        assert error == f"pypi:tiny==1.0: the disk of {disk / 'models'} {FULL}"
        assert _files(disk) == []


@pytest.mark.long
def test_a_disk_too_small_for_what_conversion_gives_is_named_and_left_as_it_was(index: Index, tmp_path: Path) -> None:
    index.add("flat", "1.0", {"flat/model.pth": pickle_bytes({"x": torch.zeros(750_000)})})
    with small_disk(tmp_path / "disk", 4_000_000) as disk:
        error = pull("pypi:flat==1.0", disk).events[-1]["error"]
        assert "model.pth could not be converted to safetensors: not enough space" in error
        assert "3.0 MB needed" in error
        assert _files(disk) == []


@pytest.mark.long
def test_a_disk_that_fills_up_during_conversion_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "model.pth"
    source.write_bytes(pickle_bytes({"x": torch.zeros(700 * 1024)}))
    with small_disk(tmp_path / "disk", 700 * 4096) as disk:  # room for the numbers, and none for their header
        target = disk / "model"
        target.mkdir()
        with pytest.raises(OSError, match="No space left on device"):
            convert.run("pickled", source, target, lambda _: None)
        assert list(disk.iterdir()) == []


def test_a_cache_that_may_not_be_written_is_named(index: Index, tmp_path: Path) -> None:
    index.add("tiny", "1.0", MODEL)
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o555)
    result = _pull_obediently("pypi:tiny==1.0", cache, index)
    assert result.returncode == 2
    assert result.stderr == f"litport: pypi:tiny==1.0: Permission denied ({cache / 'models'})\n"


def test_a_model_that_may_not_be_read_is_named(index: Index, tmp_path: Path) -> None:
    index.add("tiny", "1.0", MODEL)
    path = Store(tmp_path).pull("pypi:tiny==1.0")
    (path / "model.safetensors").chmod(0)
    result = _pull_obediently(str(path), tmp_path, index)
    assert result.returncode == 2
    assert result.stderr == f"litport: {path}: model.safetensors cannot be read: Permission denied\n"


def _pull_obediently(source: str, cache_dir: Path, index: Index) -> "subprocess.CompletedProcess[str]":
    environ = {**index.environment, "LITPORT_SERVER__CACHE_DIR": str(cache_dir), "HF_ENDPOINT": CLOSED}
    argv = [*obedient(), *LITPORT, "models", "pull", source]
    return subprocess.run(argv, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False)


def _files(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".lock"]
