"""What a stranger writes that talks: it logs, makes spans of its own, and fails when it is asked to."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from threading import Thread
from time import sleep
from typing import Any

import litserve as ls
from fastapi import HTTPException
from opentelemetry import trace

_log = logging.getLogger("stranger")
_tracer = trace.get_tracer("stranger")


def _work(x: dict[str, Any]) -> dict[str, Any]:
    with _tracer.start_as_current_span("stranger.work"):
        sleep(x.get("wait_s", 0))
        _log.warning("working on %s", x["name"], extra=x.get("extra"))
        if x.get("fail") == "badly":
            raise ValueError(f"no such secret as {x['name']}")
        if x.get("fail") == "politely":
            raise HTTPException(422, "no")
    return {"name": x["name"]}


class TalkingAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        _log.warning("nobody asks yet")

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        if x.get("in_thread"):
            thread = Thread(target=_log.warning, args=("from a thread",))
            thread.start()
            thread.join()
        return _work(x)


class ConfiguredAPI(TalkingAPI):
    """It sets up logging as it pleases: with `format`, or without."""

    def __init__(self, format: str | None = None, **options: Any) -> None:  # noqa: A002  # logging's name
        super().__init__(**options)
        self.format = format

    def setup(self, device: str) -> None:
        logging.basicConfig(level=logging.INFO, **({} if self.format is None else {"format": self.format}))


class TalkingBatchesAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [_work(item) for item in x]


class TalkingStreamAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for _ in range(3):
            yield _work(x)

    def encode_response(self, output: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from output


class TalkingAsyncAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    async def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(x.get("wait_s", 0))
        return _work({**x, "wait_s": 0})


class TalkingAsyncStreamAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        pass

    async def predict(self, x: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for _ in range(3):
            await asyncio.sleep(x.get("wait_s", 0))
            yield _work({**x, "wait_s": 0})

    async def encode_response(self, output: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        async for part in output:
            yield part
