"""What models cost that are configured and not loaded: processor time a request and at rest, and memory.

    python -m benchmarks.experiments.many_models --models 1 10 100

A platform for each number of models, all at the same time: the first model of each is the stand-in for vLLM, the others
are loaded on demand, and nobody asks for them. The same requests go to each in turns, A B C C B A, so that drift of the
machine cancels. Time and memory are those of the front door's process alone, which other load changes less than any
rate. Memory is looked at after all pages of the platform were read: they may keep something for each model.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.experiments import stand_in

_PAGES = ("/status", "/v1/models", "/openapi.json", "/ready", "/health")
_CONNECTIONS = 16
_MIB = 1024**2


@dataclass
class Figures:
    """Of one platform: microseconds a request in each turn, in each second at rest, and a page; bytes of PSS."""

    request_us: list[float] = field(default_factory=list)
    rest_us: float | None = None
    pages_us: dict[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None


class _Client(asyncio.Protocol):
    """Requests one after the other on one connection."""

    def __init__(self, request: bytes, count: int) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._remaining = count
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Ask again, or end. An answer is small enough to come at once."""
        if not data.startswith(b"HTTP/1.1 200 ") or not data.endswith(b"{}"):
            self.end.set_exception(ValueError(f"expected an empty object, got {data[:200]!r}"))
            self._transport.close()
            return
        self._remaining -= 1
        if self._remaining:
            self._transport.write(self._request)
        else:
            self.end.set_result(None)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Too early, if answers are missing."""
        if not self.end.done():
            self.end.set_exception(error or ConnectionResetError(f"{self._remaining} answers are missing"))


async def _ask(port: int, requests: int) -> None:
    body = json.dumps({"model": stand_in.NAME, "prompt": "x" * 200, "max_tokens": 16}).encode()
    head = f"POST {stand_in.PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(_CONNECTIONS):
        _, client = await loop.create_connection(lambda: _Client(request, requests // _CONNECTIONS), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.end for client in clients))


def measure(counts: Sequence[int], port: int, rounds: int, requests: int, rest_s: float) -> Mapping[int, Figures]:
    """The figures by the number of models."""
    figures = {count: Figures() for count in counts}
    sleeper = {"engine": stand_in.NAME, "load": "on_demand", "idle_unload_s": 600, "aliases": []}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ports = {count: port + index for index, count in enumerate(counts)}
        pids = {}
        for count in counts:
            models = {stand_in.NAME: stand_in.MODEL} | {f"model-{number}": sleeper for number in range(1, count)}
            platform = stand_in.serving(Path(name), models, ports[count], Path(__file__).parents[2])
            pids[count] = stack.enter_context(platform)
        for count in counts:
            uvloop.run(_ask(ports[count], requests // 10))  # warm
        for count in (*counts, *reversed(counts)) * rounds:
            before_us = stand_in.processor_us(pids[count])
            uvloop.run(_ask(ports[count], requests))
            spent_us = stand_in.processor_us(pids[count]) - before_us
            figures[count].request_us.append(spent_us / (requests // _CONNECTIONS * _CONNECTIONS))
        for count in counts:
            figures[count].pages_us = _read_pages(pids[count], ports[count])
        before = {count: stand_in.processor_us(pids[count]) for count in counts}
        time.sleep(rest_s)
        for count in counts:
            figures[count].rest_us = (stand_in.processor_us(pids[count]) - before[count]) / rest_s
            figures[count].memory_bytes = _memory_bytes(pids[count])
    return figures


def _read_pages(pid: int, port: int) -> dict[str, float]:
    """Microseconds of each page, the second time that it is read."""
    urls = {path: f"http://127.0.0.1:{port}{path}" for path in _PAGES}
    urls["metrics"] = f"http://127.0.0.1:{stand_in.metrics_port(port)}/metrics"
    costs_us = {}
    for path, url in urls.items():
        for _ in range(2):
            before_us = stand_in.processor_us(pid)
            with urllib.request.urlopen(url) as answer:  # noqa: S310 # our own
                answer.read()
            costs_us[path] = stand_in.processor_us(pid) - before_us
    return costs_us


def _memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _print(figures: Mapping[int, Figures]) -> None:
    first = next(iter(figures.values()))
    print("models  us a request (median, least..most)  ratio  us of a core in a second at rest  MiB  more MiB")
    for count, of in figures.items():
        median_us, first_us = statistics.median(of.request_us), statistics.median(first.request_us)
        spread = f"({min(of.request_us):.1f}..{max(of.request_us):.1f})"
        size, more = (of.memory_bytes or 0) / _MIB, ((of.memory_bytes or 0) - (first.memory_bytes or 0)) / _MIB
        print(f"{count:>6}  {median_us:>8.1f} {spread:<18}  {first_us / median_us:.3f}", end="")
        print(f"  {of.rest_us:>10.0f}  {size:>8.1f}  {more:>+6.1f}")
    for count, of in figures.items():
        print(f"{count:>6}  ms a page:", ", ".join(f"{path} {us / 1000:.1f}" for path, us in of.pages_us.items()))


def main() -> int:
    """Print a table, the load of the machine, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 10, 100], help="numbers of models")
    parser.add_argument("--port", type=int, default=8130, help="the first of as many")
    parser.add_argument("--rounds", type=int, default=4, help="repetitions of A B C C B A")
    parser.add_argument("--requests", type=int, default=8000, help="in each turn")
    parser.add_argument("--rest-s", type=float, default=20.0)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    figures = measure(arguments.models, arguments.port, arguments.rounds, arguments.requests, arguments.rest_s)
    _print(figures)
    print(f"load before and after: {load:.1f}, {os.getloadavg()[0]:.1f}")
    print(json.dumps({count: vars(of) for count, of in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
