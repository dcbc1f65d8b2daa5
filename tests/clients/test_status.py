"""`litport status`, once and again and again, as somebody at a terminal sees it."""

import contextlib
import io
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from clients import status
from clients.documents import Status
from tests.conftest import LITPORT, REPOSITORY, litport
from tests.services.front_door import Door, open_door
from tests.services.terminal import CTRL_C, terminal
from tests.services.tiny_engine import TinyEngine

LONG_NAME = "a-model/with-a-rather-long-name-of-its-own"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path, TinyEngine("one"), TinyEngine(LONG_NAME)) as door:
        yield door


def address(door: Door) -> str:
    return str(door.client.base_url)


def test_ps_leaves_details_out_of_a_narrow_terminal_and_shortens_no_state(door: Door) -> None:
    heads = {"140": "model state version for GiB idle loads start s", "50": "model state GiB idle"}
    for columns, headings in heads.items():
        lines = litport("ps", "--url", address(door), environ={"COLUMNS": columns}).stdout.splitlines()
        assert lines[0].split() == headings.split()
        assert lines[1].split()[:2] == ["one", "ready"]
        assert max(map(len, lines)) <= int(columns)


def test_the_status_is_a_table_and_the_addresses_of_the_models(door: Door) -> None:
    door.client.post("/predict/one", json={"wait_s": 0.2}).raise_for_status()
    ended = litport("status", "--url", address(door), environ={"COLUMNS": "140"})
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    heads = "model kind state for run wait req/s tok/s p50 s p95 s ttft s cores GiB restarts"
    assert lines[0].split() == heads.split()
    row = lines[1].split()
    assert row[:3] == ["one", "tiny", "ready"]
    assert row[5:8] == ["0", "0", row[7]]
    assert float(row[7]) > 0
    assert 0.2 < float(row[9]) < 5
    assert row[11:13] == ["-", "-"], "no first token, and nothing samples the processes"
    assert f"{address(door)}/predict/one  one" in lines


def test_a_watched_status_goes_on_until_ctrl_c_and_leaves_the_terminal_as_it_was(door: Door) -> None:
    with terminal("status", "--watch", "0.2", "--url", address(door)) as seen:
        seen.wait(r"one +\S*ready")
        door.client.post("/predict/one", json={"fail": 500, "with": {}})
        seen.wait("1 of the last 1 requests failed")
        seen.type(CTRL_C)
        assert seen.end() == 0
        assert seen.modes() == seen.before
        assert seen.output.rindex("\x1b[?25h") > seen.output.rindex("\x1b[?25l"), "the cursor is back"
    assert "Traceback" not in seen.output
    assert "\x1b[?1049h" not in seen.output, "what was seen last stays"


def test_a_platform_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as first:
        door = first.enter_context(open_door(folders[0], TinyEngine("one")))
        with terminal("status", "--watch", "0.2", "--url", address(door)) as seen:
            seen.wait(r"one +\S*ready")
            first.close()
            seen.wait(f"nothing answers at {address(door)}; waiting for it")
            with open_door(folders[1], TinyEngine("other"), port=door.port):
                seen.wait(r"other +\S*ready")
                seen.type(CTRL_C)
                assert seen.end() == 0


@pytest.mark.parametrize("name", ["status", "ps"])
def test_without_a_terminal_one_view_follows_the_other(door: Door, name: str) -> None:
    command = [*LITPORT, name, "--watch", "0.2", "--url", address(door)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        heads = 0
        while heads < 3:
            line = watching.stdout.readline()
            assert "\x1b" not in line
            heads += line.startswith("model")
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(timeout=10) == 0


def test_a_refused_status_ends_the_watching(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), auth={"api_keys": ["secret-0123456789"]}) as door:
        ended = litport("status", "--watch", "--url", address(door), environ={"OPENAI_API_KEY": "wrong"})
    assert ended.returncode == 1
    assert ended.stderr.startswith("401: ")


@pytest.mark.parametrize("words", [("0",), ("soon",), ("1", "--json")])
def test_a_watch_that_cannot_be_is_a_mistake(words: tuple[str, ...]) -> None:
    ended = litport("status", "--watch", *words)
    assert ended.returncode == 2


def model(name: str, **known: Any) -> dict[str, Any]:
    recent = {
        "window_s": 30,
        "requests": 4000,
        "failed": 0,
        "requests_per_s": 133.3,
        "input_tokens_per_s": 1,
        "output_tokens_per_s": 12345.6,
        "duration_s": {"p50": 0.1234, "p95": 123.4},
        "ttft_s": None,
    }
    fixed = {"kind": "vllm", "state": "ready", "detail": "", "in_state_s": 7000, "restarts": 0}
    counts = {"running": 128, "waiting": 1000, "cpu_cores": None, "memory_bytes": None}
    fixed |= {"source": None, "phases_s": {}, "required": True, "process_count": None, "paths": []}
    return {"name": name, **fixed, **counts, "recent": recent, **known}


def hardware(*gpus: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    memory = {"memory_available_bytes": 48 * 1024**3, "memory_total_bytes": 64 * 1024**3}
    return {"cpu_percent": None, **memory, "gpus": list(gpus), "nvml_error": error}


def gpu(index: int, **known: Any) -> dict[str, Any]:
    names = ("name", "utilization_percent", "memory_used_bytes", "memory_total_bytes", "power_w", "shared", "model")
    return {"index": index, **dict.fromkeys(names), "lost": False, **known}


def lines(width: int, *models: dict[str, Any], machine: dict[str, Any] | None = None) -> list[str]:
    file = io.StringIO()
    console = Console(width=width, file=file, highlight=False)
    document = {"version": "1", "address": "http://x", "uptime_s": 1, "in_flight": 0, "hardware": machine}
    console.print(status.view(msgspec.convert({**document, "models": models}, Status), console))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_what_is_shown_fits_the_terminal_and_names_stay_whole(width: int) -> None:
    shown = lines(width, model("one"), model(LONG_NAME), machine=hardware(gpu(0, name="N" * 99, model=LONG_NAME)))
    assert max(map(len, shown)) <= width
    names = "".join(line.split()[0] for line in shown[2:] if line and not line.startswith(("host", "GPU")))
    assert names == LONG_NAME
    assert shown[1].split()[:2] == ["one", "vllm" if width == 200 else "ready"]
    for figure in ("128", "1000", "133", "12,346", "0.123", "-"):
        assert figure in shown[1].split()


def test_a_model_that_is_not_as_it_should_be_has_a_line_of_its_own() -> None:
    shown = lines(
        200,
        model("fine"),
        model("off", state="starting", detail="restarts in 4 s: it ended", restarts=2, in_state_s=3),
        model("erring", recent={**model("x")["recent"], "failed": 3}),
    )
    assert shown[5:] == [
        "off  starting for 3 s, restarted 2 times: restarts in 4 s: it ended",
        "erring  3 of the last 4000 requests failed",
    ]


def test_the_machine_has_a_line_and_each_gpu_another() -> None:
    known = {"memory_used_bytes": 40 * 1024**3, "memory_total_bytes": 80 * 1024**3, "power_w": 312.4, "name": "H100"}
    gpus = [
        gpu(0, utilization_percent=93, model="chat", shared=False, **known),
        gpu(1, utilization_percent=50, shared=True, **known),
        gpu(2, lost=True),
        gpu(3),
    ]
    shown = lines(200, model("one"), machine=hardware(*gpus))
    assert [" ".join(line.split()) for line in shown[3:]] == [
        "host - 16.0 of 64.0 GiB used",
        "GPU 0 93.0 % busy 40.0 of 80.0 GiB used 312 W chat H100",
        "GPU 1 50.0 % busy 40.0 of 80.0 GiB used 312 W shared H100",
        "GPU 2 lost - - - -",
        "GPU 3 - - - - -",
    ]
    assert lines(200, model("one"), machine=hardware(error="no driver"))[-1] == "no driver"
    assert len(lines(200, model("one"))) == 2, "a platform that samples nothing"
