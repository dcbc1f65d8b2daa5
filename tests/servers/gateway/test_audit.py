"""The audit log goes on once its file can be written again."""

import json
from pathlib import Path

import pytest

from servers.gateway.audit import Audit


def test_lines_are_lost_only_while_the_file_cannot_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    audit = Audit(folder / "audit.jsonl")
    audit.write(number=1)
    folder.rename(moved)
    folder.write_text("no folder")
    audit.write(number=2)
    audit.write(number=3)
    folder.unlink()
    moved.rename(folder)
    audit.write(number=4)
    audit.close()
    lines = (folder / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 4]
    assert caplog.text.count("are lost: Not a directory") == 1
