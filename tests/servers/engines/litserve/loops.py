"""LitServe's real worker in this process: APIs for each of its loops, and what the loops call and send."""

import asyncio
import contextlib
import os
import queue
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from signal import signal as set_handler  # tests of what sets handlers replace `signal.signal`
from types import CodeType, FrameType
from typing import Any

import litserve
import pytest
from fastapi import HTTPException
from litserve.callbacks import Callback, CallbackRunner
from litserve.loops import base
from litserve.loops.loops import inference_worker

_TIMEOUT_S = 10


class Api(litserve.LitAPI):  # type: ignore[misc] # LitServe ships no types
    """It notes who calls it."""

    def setup(self, device: str) -> None:
        self.callers: list[CodeType] = []
        self.parts: list[Any] = []

    def note(self) -> None:
        self.callers.append(sys._getframe(2).f_code)

    def decode_request(self, request: Any) -> Any:
        self.note()
        if request == "teapot":
            raise HTTPException(418, "a teapot")
        return request

    def predict(self, x: Any) -> Any:
        self.note()
        return x

    def encode_response(self, output: Any) -> Any:
        self.note()
        return output

    def format_encoded_response(self, data: Any) -> Any:
        self.parts.append(data)
        return super().format_encoded_response(data)


class BatchApi(Api):
    def batch(self, inputs: Any) -> Any:
        self.note()
        return super().batch(inputs)

    def unbatch(self, output: Any) -> Any:
        self.note()
        return super().unbatch(output)


class StreamApi(Api):
    def predict(self, x: Any) -> Iterator[Any]:
        yield x

    def unbatch(self, output: Any) -> Iterator[Any]:
        yield from output

    def encode_response(self, output: Iterator[Any]) -> Iterator[Any]:
        self.note()
        yield from output


class AsyncApi(Api):
    async def predict(self, x: Any) -> Any:
        return x


class AsyncStreamApi(Api):
    async def predict(self, x: Any) -> AsyncIterator[Any]:
        yield x

    async def encode_response(self, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for part in output:
            yield part


class Events(Callback):  # type: ignore[misc] # LitServe ships no types
    """All calls of LitServe's callbacks in a worker, and all answers; also the way back of the answers."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.answers: list[Any] = []
        self.tasks: set[str] = set()
        self.consumers: set[int] = set()
        self.worker_ids: list[str | None] = []
        self.requests: Any = None
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def note(**arguments: Any) -> None:
            assert isinstance(arguments["lit_api"], litserve.LitAPI)
            self.names.append(name.removeprefix("on_"))
            self.worker_ids.append(os.environ.get("LITSERVE_WORKER_ID"))
            with contextlib.suppress(RuntimeError):
                if task := asyncio.current_task():
                    self.tasks.add(task.get_name())

        return note

    def send(self, item: Any, consumer_id: int) -> None:
        _, (_, status, kind, _) = item
        self.answers.append(item)
        self.consumers.add(consumer_id)
        self.names.append(status)
        if status != "OK" or kind.value == "REGULAR":
            self.open -= 1
            if not self.open:
                self.requests.put(base._SENTINEL_VALUE)


class FourCalls:
    """A queue that has only what LitServe may call."""

    def __init__(self) -> None:
        items: queue.Queue[Any] = queue.Queue()
        self.put, self.put_nowait, self.get, self.get_nowait = items.put, items.put_nowait, items.get, items.get_nowait


def work(
    api: litserve.LitAPI,
    monkeypatch: pytest.MonkeyPatch,
    *bodies: Any,
    events: Events | None = None,
    requests: Any = None,
    callback: Callback | None = None,
    transport: Any = None,
    ages_s: tuple[float, ...] = (),
) -> Events:
    """Run LitServe's worker in this process until these requests are answered; the uids are u0, u1, ..."""
    monkeypatch.setenv("LITSERVE_WORKER_ID", "none yet")  # and restore it afterwards
    event_loop = asyncio.events.new_event_loop()  # `asyncio.new_event_loop` may be patched already
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: event_loop)
    litserve.LitServer(api, accelerator="cpu", timeout=5)
    events = events or Events()
    events.requests = requests if requests is not None else FourCalls()
    events.open = len(bodies)
    for number, body in enumerate(bodies):
        age_s = ages_s[number] if ages_s else 0
        events.requests.put((7, f"u{number}", time.monotonic() - age_s, body))
    runner = CallbackRunner([callback or events])
    handler = set_handler(signal.SIGALRM, _give_up)
    signal.alarm(_TIMEOUT_S)
    try:
        with contextlib.suppress(base._StopLoopError):
            inference_worker(api, "cpu", 3, events.requests, transport or events, {}, runner, False)
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
    finally:
        signal.alarm(0)
        set_handler(signal.SIGALRM, handler)
        event_loop.close()
    return events


def _give_up(_number: int, _frame: FrameType | None) -> None:
    pytest.fail("LitServe's loop does not end")
