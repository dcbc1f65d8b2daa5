"""The same LitAPIs twice, on plain LitServe and on worker hosts, each asked through the front door's own connection."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from servers.engines.connection import CONNECTION_LOST, AnswerBrokenError, Connection
from servers.engines.http_connection import HttpConnection
from servers.engines.litserve.host.answer import Policy
from servers.engines.litserve.host.connection import HostConnection
from servers.processes.group import ProcessGroup
from tests.servers.engines.litserve.child import REPOSITORY
from tests.services.polling import wait_until

_HERE = Path(__file__).parent
# Several models with torch load at once, on a machine that may have other work.
_START_TIMEOUT_S = 240
# Requests of one batch are sent in their order, the next once the one before has surely arrived.
_APART_S = 0.1
# What a server writes about itself, and how it frames a body, which `Outcome.is_sized` says.
_OF_SERVER = frozenset({"date", "server", "transfer-encoding", "content-length"})


class Raw(NamedTuple):
    """A request as it is sent."""

    content_type: str
    data: bytes
    query: str = ""
    method: str = "POST"


@dataclass(frozen=True)
class Case:
    """An API with its settings, and requests: values for JSON bodies, or `Raw`."""

    name: str
    api: str
    requests: Sequence[Any]
    settings: dict[str, Any]

    @property
    def path(self) -> str:
        """Where plain LitServe has it."""
        return f"/{self.name}"


class Outcome(NamedTuple):
    """What a client gets. `is_sized` is whether the head says how long the body is, `is_whole` whether it ends well."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_sized: bool
    is_whole: bool = True

    @property
    def content_type(self) -> str | None:
        """Of its headers."""
        return dict(self.headers).get("content-type")

    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Twins:
    """Both, running."""

    folder: Path

    def ask(self, case: Case, *requests: Any) -> tuple[list[Outcome], list[Outcome]]:
        """The outcomes of requests, one after the other, on the host and on plain LitServe."""
        return asyncio.run(self._ask(case, requests, is_together=False))

    def ask_together(self, case: Case, *requests: Any) -> tuple[list[Outcome], list[Outcome]]:
        """The outcomes of requests that come at once."""
        return asyncio.run(self._ask(case, requests, is_together=True))

    def documents(self, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the OpenAPI documents say of its path."""
        return asyncio.run(self._documents(case))

    def log(self, case: Case) -> str:
        """What the host has written."""
        return (self.folder / f"{case.name}.log").read_text()

    def card(self, case: Case) -> dict[str, Any]:
        """The host's."""
        card: dict[str, Any] = json.loads((self.folder / f"{case.name}.card").read_text())
        return card

    async def _ask(
        self, case: Case, requests: Sequence[Any], *, is_together: bool
    ) -> tuple[list[Outcome], list[Outcome]]:
        host, path = await self._host(case), self.card(case)["api_path"]
        try:
            ways = (partial(_send, host, path), partial(self._ask_plain, case.path))
            if is_together:
                hosted, plain = [await _send_together(send, requests) for send in ways]
            else:
                hosted, plain = [[await send(request) for request in requests] for send in ways]
            return hosted, plain
        finally:
            await host.close()

    async def _ask_plain(self, path: str, request: Any) -> Outcome:
        connection = self._plain()  # of its own, as LitServe closes some that have failed
        try:
            return await _send(connection, path, request)
        finally:
            await connection.close()

    async def _documents(self, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
        plain = self._plain()
        try:
            document = json.loads(await (await plain.send("GET", "/openapi.json")).read())
        finally:
            await plain.close()
        card = self.card(case)
        return card["openapi"]["paths"][card["api_path"]], document["paths"][case.path]

    async def _host(self, case: Case) -> HostConnection:
        policy = Policy(case.name, case.settings.get("batch_timeout"))
        connection = HostConnection(self.folder / f"{case.name}.card", policy, queue_timeout_s=20)
        await _await_health_on(connection)
        return connection

    def _plain(self) -> Connection:
        return HttpConnection(self.folder / "plain")


@contextmanager
def running(folder: Path, cases: Sequence[Case]) -> Iterator[Twins]:
    """Start both, and leave nothing of them."""
    processes = []
    try:
        log_files = [folder / "hosts-log", folder / "plain-log"]
        processes.append(_launch("forked.py", _spec_files(folder, cases), log_files[0]))
        plain_cases = [{"path": case.path, "api": case.api, "settings": case.settings} for case in cases]
        (folder / "cases.json").write_text(json.dumps(plain_cases))
        processes.append(_launch("plain.py", [folder / "cases.json", folder / "plain"], log_files[1]))
        twins = Twins(folder)
        cards = [folder / f"{case.name}.card" for case in cases]
        wait_until(
            lambda: _all_live(processes, log_files) and all(map(Path.exists, cards)) and _listens(folder / "plain"),
            _START_TIMEOUT_S,
        )
        asyncio.run(_await_health(folder / "plain"))
        yield twins
    finally:
        for process in processes:
            ProcessGroup(process.pid).kill()
            process.wait()


def _all_live(processes: Sequence[subprocess.Popen[bytes]], log_files: Sequence[Path]) -> bool:
    for process, log_file in zip(processes, log_files, strict=True):
        assert process.poll() is None, log_file.read_text()[-2000:]
    return True


def _spec_files(folder: Path, cases: Sequence[Case]) -> list[Path]:
    files = []
    for case in cases:
        files.append(folder / f"{case.name}.json")
        names = {"name": case.name, "uds": str(folder / f"{case.name}.s"), "card": str(folder / f"{case.name}.card")}
        files[-1].write_text(json.dumps({**names, "api": case.api, "timeout": 20, **case.settings}))
    return files


def _launch(program: str, arguments: Sequence[Path], log_file: Path) -> subprocess.Popen[bytes]:
    with log_file.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", str(_HERE / program), *map(str, arguments)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def _await_health(path: Path) -> None:
    connection = HttpConnection(path)

    try:
        await _await_health_on(connection)
    finally:
        await connection.close()


async def _await_health_on(connection: Connection) -> None:
    async def is_healthy() -> bool:
        reply = await connection.send("GET", "/health")
        await reply.read()
        return reply.status == 200

    async with asyncio.timeout(_START_TIMEOUT_S):
        while not await is_healthy():  # noqa: ASYNC110 # another process does it
            await asyncio.sleep(0.01)


async def _send_together(send: Callable[[Any], Awaitable[Outcome]], requests: Sequence[Any]) -> list[Outcome]:
    """Within one wait for a batch, and in their order."""
    tasks = []
    for request in requests:
        tasks.append(asyncio.ensure_future(send(request)))
        await asyncio.sleep(_APART_S)
    return list(await asyncio.gather(*tasks))


async def _send(connection: Connection, path: str, request: Any) -> Outcome:
    raw = request if isinstance(request, Raw) else Raw("application/json", json.dumps(request).encode())
    headers = {"content-type": raw.content_type} if raw.content_type else {}
    async with asyncio.timeout(30):
        reply = await connection.send(raw.method, path, raw.data, headers, raw.query)
        pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in reply.headers]
        kept = sorted(pair for pair in pairs if pair[0] not in _OF_SERVER)
        is_sized = any(name == "content-length" for name, _ in pairs)
        body = b""
        try:
            async for chunk in reply.chunks:
                body += chunk
        except (*CONNECTION_LOST, AnswerBrokenError):
            return Outcome(reply.status, kept, body, is_sized, is_whole=False)
        finally:
            reply.close()
    return Outcome(reply.status, kept, body, is_sized)
