"""What strangers write that takes long: asleep, busy, deaf to exceptions, or in native code that does not come back.

A request says `how`, and names the file `begun` that is written once its predict has begun. An answer says in which
process it was made, and which requests were predicted there so far.
"""

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litserve as ls
from litserve.specs.openai_embedding import OpenAIEmbeddingSpec


def take_long(how: str) -> None:
    end_s = time.monotonic() + 60
    if how == "asleep":
        time.sleep(60)
    elif how == "busy":
        while time.monotonic() < end_s:
            pass
    elif how == "deaf":
        while time.monotonic() < end_s:
            with contextlib.suppress(Exception):
                time.sleep(60)
    elif how == "native":  # locks a mutex twice, and keeps the interpreter meanwhile
        libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)
    elif how.startswith("until "):
        while not Path(how.removeprefix("until ")).exists():
            time.sleep(0.02)


class SlowAPI(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.seen: list[str] = []

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(x["name"])
        Path(x["begun"]).touch()
        take_long(x["how"])
        return {"pid": os.getpid(), "seen": self.seen}


class SlowBatchesAPI(SlowAPI):
    def predict(self, x: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.seen.extend(item["name"] for item in x)
        for item in x:
            Path(item["begun"]).touch()
        for item in x:
            take_long(item["how"])
        return [{"pid": os.getpid(), "seen": self.seen, "name": item["name"], "size": len(x)} for item in x]


class SlowStreamAPI(SlowAPI):
    def predict(self, x: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"pid": os.getpid()}
        Path(x["begun"]).touch()
        if x["how"] == "endless":
            while True:
                yield {"more": "of it"}
        take_long(x["how"])

    def encode_response(self, output: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from output


class SlowStreamBatchesAPI(SlowAPI):
    def predict(self, x: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        yield [{"pid": os.getpid()} for _ in x]
        for item in x:
            Path(item["begun"]).touch()
            take_long(item["how"])

    def encode_response(self, output: Iterator[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        yield from output


class SlowEmbeddingsAPI(ls.LitAPI):
    """`begun` and `how` come as the two words of the text."""

    def __init__(self) -> None:
        super().__init__(spec=OpenAIEmbeddingSpec())

    def setup(self, device: str) -> None:
        pass

    def predict(self, x: str) -> list[list[float]]:
        begun, _, how = x.partition(" ")
        Path(begun).touch()
        take_long(how)
        return [[float(os.getpid())]]

    def encode_response(self, output: list[list[float]]) -> dict[str, Any]:
        return {"embeddings": output}


class SlowAsyncAPI(SlowAPI):
    def __init__(self) -> None:
        super().__init__(enable_async=True)

    async def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    async def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        await asyncio.to_thread(Path(x["begun"]).touch)
        await asyncio.to_thread(take_long, x["how"])
        self.seen.append(x["name"])
        return {"pid": os.getpid(), "seen": self.seen}

    async def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    ls.LitServer(SlowAPI()).run(port=8000)
