"""The cycle writes to the byte what uvicorn's own writes, and a whole answer at once."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from servers.gateway.cycle import Cycle

_LOG = logging.getLogger("test")
_JSON = (b"Content-Type", b"application/json")


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True


def _cycle(kind: type[RequestResponseCycle], method: str, keep_alive: bool) -> tuple[Any, _Transport]:
    transport = _Transport()
    cycle = kind(
        scope={"type": "http", "method": method},  # type: ignore[typeddict-item] # as much as a cycle reads
        transport=transport,
        flow=FlowControl(transport),
        logger=_LOG,
        access_logger=_LOG,
        access_log=False,
        default_headers=[(b"date", b"now")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )
    return cycle, transport


def _start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _body(body: bytes = b"", more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize(
    "messages",
    [
        [_start(_JSON, (b"content-length", b"2")), _body(b"ok")],
        [_start(_JSON, (b"content-length", b"2")), _body(b"o", True), _body(b"k")],
        [_start((b"content-length", b"0")), _body()],
        [_start(_JSON), _body(b"one", True), _body(b"", True), _body(b"two")],
        [_start(_JSON), _body(b"one", True), _body()],
        [_start((b"Connection", b"Close, x")), _body(b"one")],
        [_start((b"transfer-encoding", b"chunked")), _body(b"one")],
        [_start(status=204), _body()],
        [_start((b"content-length", b"2")), _body(b"three")],
        [_start((b"content-length", b"2")), _body(b"1")],
        [_start((b"x y", b"1"))],
        [_start((b"x", b"1\r\n2"))],
        [_body(b"one")],
        [_start(), _start()],
        [_start(), _body(b"one"), _body(b"two")],
    ],
)
def test_every_answer_has_the_bytes_and_the_errors_of_uvicorns_own(
    messages: list[dict[str, Any]], method: str, keep_alive: bool
) -> None:
    async def outcome(kind: type[RequestResponseCycle]) -> tuple[Any, ...]:
        cycle, transport = _cycle(kind, method, keep_alive)
        error = None
        try:
            for message in messages:
                await cycle.send(message)
        except RuntimeError as problem:
            error = str(problem)
        return b"".join(transport.writes), error, transport.is_closed, cycle.response_complete

    assert asyncio.run(outcome(Cycle)) == asyncio.run(outcome(RequestResponseCycle))


@pytest.mark.parametrize("length", [(), ((b"content-length", b"3"),)])
def test_a_whole_answer_is_one_write(length: tuple[tuple[bytes, bytes], ...]) -> None:
    async def answer(*messages: dict[str, Any]) -> list[bytes]:
        cycle, transport = _cycle(Cycle, "POST", True)
        for message in messages:
            await cycle.send(message)
        return transport.writes

    start = _start(_JSON, *length)
    together, apart = asyncio.run(answer({**start, "whole": b"all"})), asyncio.run(answer(start, _body(b"all")))
    assert len(together) == 1
    assert together[0] == b"".join(apart)


def test_a_chunk_that_is_written_now_is_the_chunk_of_a_message() -> None:
    async def answer(now: bool) -> bytes:
        cycle, transport = _cycle(Cycle, "POST", True)
        await cycle.send(_start(_JSON))
        for chunk in (b"one", b"", b"three"):
            if now:
                assert cycle.write(chunk)
            else:
                await cycle.send(_body(chunk, True))
        await cycle.send(_body())
        return b"".join(transport.writes)

    assert asyncio.run(answer(True)) == asyncio.run(answer(False))
