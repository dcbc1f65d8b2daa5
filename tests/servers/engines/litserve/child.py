"""The process of a LitAPI as the supervisor starts it, and a client that speaks to it as the front door does."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from servers.engines.base import CanaryError, get
from servers.engines.connection import CONNECTION_LOST, AnswerBrokenError, Connection, Reply
from servers.engines.litserve.connection import ApiConnection
from servers.engines.litserve.host.answer import Policy
from servers.processes.group import ProcessGroup
from tests.services.polling import wait_until

REPOSITORY = Path(__file__).resolve().parents[4]
STRANGERS = REPOSITORY / "tests" / "services" / "strangers"
_START_TIMEOUT_S = 90
_ANSWER_TIMEOUT_S = 60
_POLICY = Policy("m")


class Line(httpx.BaseTransport):
    """Lets an httpx client use a `Connection`, which lives on a loop of its own in a thread."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="front door")
        self._thread.start()
        self.connection = self.run(_call(connect))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What this coroutine returns on the connection's loop."""
        return self.submit(work).result(_ANSWER_TIMEOUT_S)

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run it there; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def ask(self, request: httpx.Request) -> "Future[Reply]":
        """Send a request as the front door forwards it."""
        headers = {name: value for name, value in request.headers.items() if name in _FORWARDED}
        query = request.url.query.decode("latin-1")
        content = request.read()
        return self.submit(self.connection.send(request.method, request.url.path, content, headers, query))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self.ask(request).result(_ANSWER_TIMEOUT_S)
        return httpx.Response(reply.status, headers=list(reply.headers), stream=_Chunks(self, reply))

    def close(self) -> None:
        self.run(self.connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_FORWARDED = {"content-type", "inference-header-content-length", "x-request-id", "traceparent", "tracestate"}


async def _call(connect: Callable[[], Connection]) -> Connection:
    return connect()


class _Chunks(httpx.SyncByteStream):
    def __init__(self, line: Line, reply: Reply) -> None:
        self._line = line
        self._reply = reply

    def __iter__(self) -> Iterator[bytes]:
        chunks = aiter(self._reply.chunks)
        while (chunk := self._line.run(_next(chunks))) is not None:
            yield chunk

    def close(self) -> None:
        async def close() -> None:
            self._reply.close()

        self._line.run(close())


async def _next(chunks: Any) -> bytes | None:
    try:
        chunk: bytes | None = await anext(chunks, None)
    except (AnswerBrokenError, *CONNECTION_LOST) as problem:
        raise httpx.RemoteProtocolError(str(problem)) from problem
    return chunk


@dataclass(frozen=True)
class Child:
    """A running child; `http` speaks to it, `card` is what it says about itself."""

    process: subprocess.Popen[bytes]
    http: httpx.Client
    line: Line
    card: dict[str, Any]
    log_file: Path

    def predict(self, **body: Any) -> httpx.Response:
        return self.http.post(self.card["api_path"], json=body)

    @contextmanager
    def asked(self, **body: Any) -> Iterator[None]:
        """Ask, and leave at the end of the block, whatever of the answer has come."""
        request = self.http.build_request("POST", self.card["api_path"], json=body)
        reply = self.line.ask(request)
        try:
            yield
        finally:
            if reply.cancel():
                self.line.run(asyncio.sleep(0.05))  # the connection's loop cancels it in its next turns
            else:
                _Chunks(self.line, reply.result()).close()

    def is_gone(self) -> bool:
        """Whether no process of its group lives, give or take the second that a resource tracker needs to notice."""
        deadline = time.monotonic() + 1
        while ProcessGroup(self.process.pid).members():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


@contextmanager
def running(folder: Path, policy: Policy = _POLICY, **spec: Any) -> Iterator[Child]:
    """Start a child, wait until it can answer, and leave nothing of it."""
    process, log_file = launch(folder, **spec)
    card_file = folder / "card.json"
    line = Line(lambda: ApiConnection(card_file, folder / "m.sock", policy, spec.get("timeout")))
    try:
        with httpx.Client(transport=line, base_url="http://model", timeout=60) as http:
            await_that(lambda: _is_ready(line), process, log_file)
            card = json.loads(card_file.read_text())
            yield Child(process, http, line, card, log_file)
    finally:
        end(process)


def launch(folder: Path, **spec: Any) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a child in a process group of its own; returns it and the file with its output."""
    names = {"name": "m", "uds": str(folder / "m.sock"), "card": str(folder / "card.json")}
    spec_file, log_file = folder / "spec.json", folder / "log"
    spec_file.write_text(json.dumps({**names, **spec}))
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "servers.engines.litserve.main", str(spec_file)],
            cwd=REPOSITORY,
            # torch's threads wait busily for each other on a busy machine
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, log_file


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the child's group, if anything of it is left."""
    ProcessGroup(process.pid).kill()
    process.wait()


def await_that(happened: Callable[[], bool], process: subprocess.Popen[bytes], log_file: Path) -> None:
    """Wait until something that the child does has happened; AssertionError with its output when it cannot any more."""

    def check() -> bool:
        assert process.poll() is None, f"the child ended with {process.returncode}: {log_file.read_text()[-2000:]}"
        return happened()

    wait_until(check, _START_TIMEOUT_S, problem=lambda: log_file.read_text()[-2000:])


def _is_ready(line: Line) -> bool:
    with suppress(CanaryError, *CONNECTION_LOST):
        line.run(get(line.connection, "/health"))
        return True
    return False
