"""The folder of sockets has a short path whatever TMPDIR is."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from configs.errors import UserError
from servers.processes import run_dir
from servers.processes.run_dir import make_run_dir
from tests.conftest import serving


@pytest.fixture
def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True)
    return folder


def test_a_short_tmpdir_is_used_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # pytest's own folder is long
        monkeypatch.setattr(tempfile, "tempdir", short)
        monkeypatch.setenv("TMPDIR", short)
        folder = make_run_dir()
        assert folder.parent == Path(short)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert os.environ["TMPDIR"] == short


def test_where_nothing_short_can_be_written_tmpdir_is_named(long_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(long_folder))
    monkeypatch.setattr(run_dir, "_SHORT_DIRS", ())
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(UserError, match="TMPDIR: expected a path of at most 62 bytes"):
        make_run_dir()


def test_a_platform_serves_under_a_long_tmpdir(long_folder: Path, tmp_path: Path) -> None:
    """LitServe's manager and workers have sockets in TMPDIR, too."""
    squares = "tests/services/strangers/squares.py:SquaresAPI"
    arguments = (squares, "--server.cache_dir", str(tmp_path))
    with serving(tmp_path, *arguments, environ={"TMPDIR": str(long_folder), "XDG_RUNTIME_DIR": ""}) as platform:
        answer = platform.http.post("/predict/squares", json={"input": 3}, timeout=30)
        assert (answer.status_code, answer.json()) == (200, {"output": 9})
        log = platform.log.read_text()
    assert "TMPDIR is too long for Unix sockets" in log
    folder = Path(log.split("they are in ")[1].split()[0].strip('",'))
    assert not folder.exists(), "removed in the end"
