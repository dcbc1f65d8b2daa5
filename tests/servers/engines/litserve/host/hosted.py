"""A worker host as the front door runs it: its process, and a dispatcher in the test's own loop."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.engines.litserve.host.answer import DispatchError, HostRequest, HostResponse, Policy
from servers.engines.litserve.host.dispatcher import Dispatcher
from tests.servers.engines.litserve.child import await_that, end, launch

_START_TIMEOUT_S = 60
_ANSWER_TIMEOUT_S = 20
_POLICY = Policy("m")


@dataclass(frozen=True)
class Answer:
    """A whole answer; `broken` names why it is not whole."""

    response: HostResponse
    body: bytes
    broken: str | None = None

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def content_type(self) -> str | None:
        return dict(self.response.headers).get("content-type")

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Hosted:
    """A running host; `card` is what it says about itself."""

    process: subprocess.Popen[bytes]
    dispatcher: Dispatcher
    card: dict[str, Any]
    log_file: Path

    async def post(
        self, body: Any = None, *, content_type: str = "application/json", data: bytes | None = None
    ) -> Answer:
        payload = json.dumps(body).encode() if data is None else data
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            return await whole(await self.dispatcher.send(HostRequest("r", content_type, payload)))

    async def predict(self, **body: Any) -> Answer:
        return await self.post(body)

    @property
    def log(self) -> str:
        return self.log_file.read_text()


async def whole(response: HostResponse) -> Answer:
    """Read an answer to its end."""
    if response.parts is None:
        return Answer(response, response.body)
    body = b""
    try:
        async for part in response.parts:
            body += part
    except DispatchError as error:
        return Answer(response, body, f"{type(error).__name__}: {error}")
    return Answer(response, body)


@asynccontextmanager
async def hosting(folder: Path, policy: Policy = _POLICY, **spec: Any) -> AsyncIterator[Hosted]:
    """Start a host, wait until its workers are set up, and leave nothing of it."""
    process, log_file = launch(folder, **spec)
    try:
        card = await asyncio.to_thread(_read_card, folder / "card.json", process, log_file)
        sockets = [Path(path) for path in card["sockets"]]
        dispatcher = Dispatcher(sockets, policy)
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not dispatcher.is_complete:  # noqa: ASYNC110 # another process does it
                await asyncio.sleep(0.01)
        try:
            yield Hosted(process, dispatcher, card, log_file)
        finally:
            await dispatcher.close()
    finally:
        end(process)


def run_hosted(folder: Path, use: Callable[[Hosted], Awaitable[Any]], **spec: Any) -> Any:
    """Start a host, and return what `use` returns of it."""

    async def run() -> Any:
        async with hosting(folder, **spec) as host:
            return await use(host)

    return asyncio.run(run())


def _read_card(file: Path, process: subprocess.Popen[bytes], log_file: Path) -> dict[str, Any]:
    await_that(file.exists, process, log_file)
    card: dict[str, Any] = json.loads(file.read_text())
    return card
