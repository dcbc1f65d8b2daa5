"""Log lines: their forms, and what becomes of what a model's processes print."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

# Logs as `litport serve` does, with a child whose words are standard input's.
PROGRAM = """
import asyncio, logging, sys
from pathlib import Path
from configs.settings import Telemetry
from servers.platform import logs
from servers.engines.base import Command
from servers.models.process import ModelProcess
from servers.processes.reaper import Reaper

async def run(words, log_file):
    with Reaper(log_file.parents[1] / "run") as reaper:
        child = ModelProcess("chat", reaper, log_file)
        await child.start(Command([sys.executable, "-c", f"print({words!r})"], {}))
        if not words.startswith("starting"):
            child.watch([child.group_id])
        await child.broken.wait()
        await asyncio.sleep(0.1)
        await child.end(1)

_, words, log_file, level, form = sys.argv
logs.configure(Telemetry(log_level=level, log_format=form))
log = logging.getLogger("litport.gateway")
if words:
    asyncio.run(run(words, Path(log_file)))
else:
    log.info("a %s", "line", extra={"model": "chat", "request_id": "r-1"})
    log.debug("not shown")
    try:
        raise ValueError("wrong")
    except ValueError:
        log.exception("failed")
"""
VLLM = "(EngineCore pid=12) {level} 11-25 20:27:12 [core.py:133] {text}"
TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in run
    go()
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in <module>
    run()
    ^^^^^
RuntimeError: the weights: are gone"""


def run(folder: Path, words: str = "", level: str = "info", form: str = "auto") -> list[str]:
    """What is on standard error, a file, after a child printed these words."""
    log_file = folder / "logs" / "chat.log"
    command = [sys.executable, "-c", PROGRAM, words, str(log_file), level, form]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    return done.stderr.splitlines()


def records(folder: Path, words: str = "", level: str = "info") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run(folder, words, level)]
    for record in found:
        assert list(record)[:3] == ["time", "level", "logger"]
    return found


def test_where_no_terminal_is_each_line_is_json_with_its_fields(tmp_path: Path) -> None:
    first, second = records(tmp_path)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "litport.gateway",
        "message": "a line",
        "model": "chat",
        "request_id": "r-1",
    }
    assert (second["level"], second["message"]) == ("error", "failed")
    assert second["exception"].startswith("Traceback")
    assert second["exception"].endswith("ValueError: wrong")


def test_on_a_terminal_lines_are_for_people(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, "", str(tmp_path), "info", "auto"]
    subprocess.run(command, cwd=REPOSITORY, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    lines = os.read(ours, 65536).decode().splitlines()
    os.close(ours)
    assert lines[0][8:] == " INFO    a line (request r-1)"
    assert lines[1][8:] == " ERROR   failed"
    assert lines[-1] == "ValueError: wrong"


def test_a_child_is_heard_from_warnings_on_and_its_log_file_has_all(tmp_path: Path) -> None:
    said = "\n".join(
        [
            "plain words",
            VLLM.format(level="INFO", text="fine"),
            VLLM.format(level="WARNING", text="no Triton"),
            "INFO:     Application startup complete.",
        ]
    )
    (heard,) = records(tmp_path, said)
    assert (heard["level"], heard["logger"], heard["source"], heard["model"]) == (
        "warning",
        "litport.model",
        "model",
        "chat",
    )
    assert heard["message"] == VLLM.format(level="WARNING", text="no Triton")
    assert (tmp_path / "logs" / "chat.log").read_text() == said + "\n"
    everything = records(tmp_path, said, level="debug")
    assert sorted((record["level"], record["message"]) for record in everything) == sorted(
        [("debug", line) for line in said.splitlines() if "WARNING" not in line] + [("warning", heard["message"])]
    )


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("(APIServer pid=1) ERROR 11-25 20:27:12 [a.py:1] no", "error"),
        ("WARNING:  no", "warning"),
        ("ERROR:root:no", "error"),
        ("2026-11-25 20:27:12,123 - Process-1[9] - litserve.loops.base - ERROR - no", "error"),
        ("2026-11-25 20:27:12.123 | CRITICAL | mine:run:1 - no", "critical"),
        ("[W1125 20:27:17.628101822 utils.cpp:68] Warning: NUMA binding", "warning"),
        ("litserve_main: error: api 'x': no", "error"),
        ("warning: chat: with batches", "warning"),
        ("INFO:     an ERROR of somebody else's", None),
        ("2026-11-25 20:27:12,123 - x - INFO - ERROR", None),
        ("Loading weights: 100%|####| ERROR", None),
    ],
)
def test_a_line_has_the_level_that_it_gives_itself(line: str, level: str | None, tmp_path: Path) -> None:
    assert [record["level"] for record in records(tmp_path, line)] == ([level] if level else [])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (TRACEBACK.splitlines(), "RuntimeError: the weights: are gone"),
        (
            ["ERROR:    Exception in ASGI application", *TRACEBACK.splitlines()],
            "ERROR:    Exception in ASGI application: RuntimeError: the weights: are gone",
        ),
        (
            [VLLM.format(level="ERROR", text=line) for line in ("it died", *TRACEBACK.splitlines())],
            VLLM.format(level="ERROR", text="it died: RuntimeError: the weights: are gone"),
        ),
    ],
    ids=["bare", "uvicorn", "vLLM"],
)
def test_a_traceback_is_one_record(lines: list[str], message: str, tmp_path: Path) -> None:
    between = VLLM.format(level="INFO", text="of another process")
    words = "\n".join([*lines[:4], between, *lines[4:], VLLM.format(level="WARNING", text="afterwards")])
    record, after = records(tmp_path, words)
    assert (record["level"], record["message"]) == ("error", message)
    for text in ("KeyError: 'x'", "During handling of", "    go()"):
        assert text in record["exception"]
    assert after["message"].endswith("afterwards")
    told = run(tmp_path, words, form="text")
    assert len(told) == 2
    assert f"ERROR   [chat] {message} (" in told[0]
    assert told[0].endswith(f"lines in {tmp_path / 'logs' / 'chat.log'})")


def test_the_ids_at_the_end_of_a_childs_line_become_a_field(tmp_path: Path) -> None:
    words = "WARNING:  slow request_id=r-1,r:2\nWARNING:  a request_id=<none>"
    first, second = records(tmp_path, words)
    assert (first["message"], first["request_id"]) == ("WARNING:  slow", "r-1,r:2")
    assert second["message"] == "WARNING:  a request_id=<none>"
    assert "request_id" not in second
    assert (tmp_path / "logs" / "chat.log").read_text() == words + "\n"
    assert run(tmp_path, words, form="text")[0].endswith("WARNING [chat] WARNING:  slow (request r-1,r:2)")


def test_lines_about_the_same_request_are_one_record(tmp_path: Path) -> None:
    lines = ["ERROR:  it erred", "Please look below", *TRACEBACK.replace("\n\n", "\n").splitlines()]
    first, second = records(tmp_path, "\n".join(f"{line} request_id=r-1" for line in (*lines, "ERROR:  again")))
    assert first["message"] == "ERROR:  it erred: RuntimeError: the weights: are gone"
    assert first["exception"] == "\n".join(["it erred", *lines[1:]])
    assert second["message"] == "ERROR:  again"
    assert first["request_id"] == second["request_id"] == "r-1"


def test_what_a_child_prints_cannot_move_the_terminals_cursor(tmp_path: Path) -> None:
    assert run(tmp_path, "\x1b[31mERROR\x1b[0m: \x1b]0;title\x07no\x1b[2J", form="text")[0].endswith(
        "ERROR   [chat] ERROR: ]0;titleno"
    )


def test_people_are_spared_what_engines_warn_of_at_every_start(tmp_path: Path) -> None:
    words = "starting\nWARNING:  no Triton\nERROR:  no weights"
    assert [record["level"] for record in records(tmp_path, words)] == ["warning", "error"]
    (told,) = run(tmp_path, words, form="text")
    assert told.endswith("ERROR   [chat] ERROR:  no weights")
    assert len(run(tmp_path, words, level="debug", form="text")) == 3


def test_a_child_that_errs_without_end_is_not_heard_without_end(tmp_path: Path) -> None:
    said = "\n".join(f"ERROR:  no {number}" for number in range(200))
    heard = records(tmp_path, said)
    assert [record["message"] for record in heard[:30]] == said.splitlines()[:30]
    (last,) = heard[30:]
    assert last["message"] == "more than 30 warnings within a minute; the others are in its log file"
    assert (tmp_path / "logs" / "chat.log").read_text() == said + "\n"
