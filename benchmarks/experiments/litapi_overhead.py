"""What Litport adds to a LitAPI that does nothing: echo on LitServe's own server (A) and on the worker host (B).

    python -m benchmarks.experiments.litapi_overhead [--against CHECKOUT]

With another checkout, A is the worker host there. Each is a `litport serve` of its own, and wrk calls their public
ports one after the other, A B B A, so that drift of the machine cancels. The processor time is that of one platform and
all its processes over the block, divided by the answers. A block with an answer other than 200 ends the experiment.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.experiments.blocks import Block, print_blocks
from clients.ready import wait_until_ready
from servers.processes.interpreter import module_argv
from servers.processes.proc import cpu_s

_CHECKOUT = Path(__file__).parents[2]
_WRK_SCRIPT = """
wrk.method = "POST"
wrk.body = '{"input": [1, 2, 3]}'
wrk.headers["content-type"] = "application/json"
"""
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class _Platform:
    """A running `litport serve` of one echo."""

    url: str
    process: psutil.Process


@contextmanager
def _platform(folder: Path, checkout: Path, serving: str, port: int) -> Iterator[_Platform]:
    recipe = folder / f"{port}.yaml"
    recipe.write_text(json.dumps({"models": {"echo": {"engine": "litserve", "api": "echo", "serving": serving}}}))
    argv = [*module_argv("litport", "serve", str(recipe)), "--server.port", str(port)]
    environ = {**os.environ, "LITPORT_TELEMETRY__METRICS_PORT": "0", "PYTHONPATH": str(checkout)}
    with (folder / "log").open("ab") as log, subprocess.Popen(argv, stdout=log, stderr=log, env=environ) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", 60)
            yield _Platform(f"http://127.0.0.1:{port}/predict/echo", psutil.Process(process.pid))
        finally:
            process.terminate()


def _run_wrk(platform: _Platform, connections: int, seconds: int, script: Path) -> Block:
    pids = [process.pid for process in (platform.process, *platform.process.children(recursive=True))]
    before_s = cpu_s(pids)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), platform.url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent_s = cpu_s(pids) - before_s
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    count = int(_field(r"(\d+) requests in", text))
    rate = float(_field(r"Requests/sec:\s+([\d.]+)", text))
    return Block(rate, 1000 * spent_s / count, _latency_ms("50%", text), _latency_ms("99%", text))


def _field(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something else than expected:\n{text}")
    return match[1]


def _latency_ms(quantile: str, text: str) -> float:
    number = float(_field(rf"{quantile}\s+([\d.]+)", text))
    return number * _UNITS_MS[_field(rf"{quantile}\s+[\d.]+(\w+)", text)]


def measure(port: int, rounds: int, seconds: int, against: Path | None = None) -> dict[str, list[Block]]:
    """Blocks by number of connections and side."""
    sides = {"A": (_CHECKOUT, "litserve") if against is None else (against.resolve(), "host"), "B": (_CHECKOUT, "host")}
    blocks: dict[str, list[Block]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        script = Path(name, "echo.lua")
        script.write_text(_WRK_SCRIPT)
        platforms = {
            side: stack.enter_context(_platform(Path(name), checkout, serving, port + index))
            for index, (side, (checkout, serving)) in enumerate(sides.items())
        }
        for platform in platforms.values():  # warm both
            _run_wrk(platform, 4, 1, script)
        for connections in (16, 1):
            for side in "ABBA" * rounds:
                block = _run_wrk(platforms[side], connections, seconds, script)
                blocks.setdefault(f"{connections} connections, {side}: {sides[side][1]}", []).append(block)
    return blocks


def main() -> int:
    """Print a table, the load of the machine, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--port", type=int, default=8123, help="the first of two")
    parser.add_argument("--rounds", type=int, default=2, help="repetitions of A B B A")
    parser.add_argument("--seconds", type=int, default=6, help="length of a block")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    print_blocks(measure(arguments.port, arguments.rounds, arguments.seconds, arguments.against), load_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
