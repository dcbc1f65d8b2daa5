"""A stand-in for vLLM in experiments with the front door: event streams at a set pace, and a platform in front of it.

    python benchmarks/experiments/stand_in.py server SOCKET
    PYTHONPATH=CHECKOUT python benchmarks/experiments/stand_in.py platform RECIPE PORT

The server writes chunks as vLLM's does, one an event, and costs little itself. The platform is that of the checkout on
the path, so that an older one can be measured beside this one.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvloop
from pydantic import Field

from clients.ready import wait_until_ready
from configs.loading import LoadedSettings
from configs.settings import ModelSettings
from servers.engines import registry
from servers.engines.base import Card, Command, Needs
from servers.engines.kind import EngineKind
from servers.engines.vllm.engine import VllmEngine
from servers.platform import serve, targets
from servers.processes.group import Member

NAME = "stand-in"
MODEL = {"engine": NAME, "canary_interval_s": None}
PATH = "/v1/completions"
_ANSWER = (
    b'data: {"id":"cmpl-0123456789abcdef0123456789abcdef","object":"text_completion","created":1764300000,'
    b'"model":"stand-in","choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":null,'
    b'"stop_reason":null}]}\n\n'
)
EVENT = b"data: "
END = b"0\r\n\r\n"
_CHUNK = b"%x\r\n%b\r\n" % (len(_ANSWER), _ANSWER)
_LAST = b"e\r\ndata: [DONE]\n\n\r\n" + END
_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Sat, 28 Nov 2026 04:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_OTHER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class _Server(asyncio.Protocol):
    """One connection: a body with `events` gets so many, `wait_s` apart; anything else an empty object."""

    def __init__(self) -> None:
        self._unread = b""
        self._transport: Any = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if not end or len(rest) < size:
            return
        self._unread = rest[size:]
        document = json.loads(rest[:size] or b"{}")
        if "events" in document:
            self._task = asyncio.ensure_future(self._stream(document["events"], document["wait_s"]))
        else:
            self._transport.write(_OTHER)

    async def _stream(self, events: int, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._transport.write(_HEAD)
        due_s = loop.time()
        for _ in range(events):
            due_s += wait_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            self._transport.write(_CHUNK)
        self._transport.write(_LAST)


async def _serve(socket: str) -> None:
    await asyncio.get_running_loop().create_unix_server(_Server, socket)
    await asyncio.Event().wait()


class StandInModel(ModelSettings):
    """A model of the stand-in."""

    engine: Literal["stand-in"] = Field(description="What runs the model.")
    on_overflow: Literal["cut"] = Field("cut", description="As of vLLM's models; some checkouts read it.")


@dataclass(frozen=True)
class StandInEngine(VllmEngine):
    """An engine of one process without weights."""

    def command(self, model_dir: Path | None, socket: Path) -> Command:  # noqa: ARG002 # as the protocol
        """This file's server."""
        return Command([sys.executable, __file__, "server", str(socket)], {})

    async def warm(self, connection: Any) -> Card:
        """One route, once it listens."""
        reply = await connection.send("GET", "/health")
        await reply.read()
        return Card(frozenset({PATH}), None, ({"id": self.name, "object": "model"},), max_running=10_000)

    async def canary(self, connection: Any, card: Card) -> None:
        """Not asked."""

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """It is one process."""
        return member.pid == main_pid

    def needs(self, model_dir: Path | None) -> Needs:  # noqa: ARG002 # as the protocol
        """Next to nothing."""
        return Needs(1, 0)


@contextmanager
def serving(folder: Path, models: Mapping[str, Any], port: int, checkout: Path) -> Iterator[int]:
    """The platform of a checkout with these models; yields the id of its front door's process."""
    recipe = folder / f"{port}.yaml"
    recipe.write_text(json.dumps({"models": models}))
    argv = [sys.executable, __file__, "platform", str(recipe), str(port)]
    environ = {**os.environ, "PYTHONPATH": str(checkout), "LITPORT_TELEMETRY__METRICS_PORT": str(metrics_port(port))}
    with (folder / "log").open("ab") as log, subprocess.Popen(argv, stdout=log, stderr=log, env=environ) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", 60)
            yield process.pid
        finally:
            process.terminate()


def metrics_port(port: int) -> int:
    """The port of the metrics of the platform on this port."""
    return port + 1000


def processor_us(pid: int) -> float:
    """Microseconds on a processor of all threads of a process; /proc/PID/stat has hundredths of a second."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def _run_platform(recipe: str, port: str) -> int:
    registry.register(EngineKind(StandInModel, lambda name, settings, _site: StandInEngine(name, settings)))

    def read(_: Sequence[Path] = ()) -> LoadedSettings:
        return targets.load([recipe], ["--server.port", port])

    return serve.serve(read(), read, "experiment")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        uvloop.run(_serve(sys.argv[2]))
    else:
        sys.exit(_run_platform(*sys.argv[2:]))
