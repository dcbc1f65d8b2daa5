"""The users of an experiment: each asks one server, and asks again when it has answered."""

import asyncio
import json
import struct
import time
from collections.abc import Iterator

import aiohttp
import psutil

_START_S = 300


class Client:
    """`users` of one side, who send JSON bodies to its URL, packed as Triton's tensors or as a batch of BentoML's."""

    def __init__(self, side: str, url: str, bodies: Iterator[bytes], users: int) -> None:
        self._side = side
        self._url = url
        self._bodies = bodies
        self._users = users

    async def wait(self, process: psutil.Process | None = None) -> None:
        """Return once it answers. Raises TimeoutError, and SystemExit when its process ends."""
        async with asyncio.timeout(_START_S), aiohttp.ClientSession() as session:
            while True:
                if process is not None and process.status() == psutil.STATUS_ZOMBIE:
                    raise SystemExit(f"{self._side} has ended")
                try:
                    await self._ask(session)
                except (aiohttp.ClientError, RuntimeError):
                    await asyncio.sleep(0.5)
                else:
                    return

    async def run(self, seconds: float) -> tuple[list[float], float]:
        """The latency of each answer, and the time they all took, in seconds."""
        latencies: list[float] = []
        begin_s = time.perf_counter()

        async def user(session: aiohttp.ClientSession) -> None:
            while time.perf_counter() < begin_s + seconds:
                sent_s = time.perf_counter()
                await self._ask(session)
                latencies.append(time.perf_counter() - sent_s)

        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for _ in range(self._users):
                tasks.create_task(user(session))
        return latencies, time.perf_counter() - begin_s

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        body, headers = next(self._bodies), {"content-type": "application/json"}
        if self._side == "triton":
            body, headers = _triton_body(body)
        elif self._side == "bentoml":
            body = json.dumps({"bodies": [body.decode()]}).encode()
        async with session.post(self._url, data=body, headers=headers) as answer:
            text = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{self._side}: {answer.status} {text[:300]!r}")


def _triton_body(body: bytes) -> tuple[bytes, dict[str, str]]:
    """One BYTES tensor by the binary extension, and the answer as well."""
    size = len(body) + 4
    tensor = {"name": "body", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"}
    return head + struct.pack("<I", len(body)) + body, headers
