"""What the front door costs. `vllm`: a process of vLLM, asked on its socket (A) and through the port (B).

    litport serve configs/recipes/demo.yaml &
    python -m benchmarks.experiments.front_door vllm --model smollm2-135m-instruct

Each block sends the same number of streamed completions of random tokens, of 16 to 48, by a closed loop of users. Their
lengths differ, or all users would begin and end together; they are the same in every block.
Blocks are interleaved A B B A, so that drift of the machine cancels, and each repetition gives one ratio; the median,
least and most of the ratios are printed. A request that fails or is cut short ends the experiment with an error.

`events`: the front door's processor time for an event of a stream, over a server that stands in for vLLM; with another
checkout (A) beside this one (B), blocks A B B A. The rest of the machine's load changes it less than any rate.

    python -m benchmarks.experiments.front_door events --against CHECKOUT
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from benchmarks.experiments import stand_in

PROMPT_TOKENS = 64
OUTPUT_TOKENS = range(16, 49)
# Token ids below this are ordinary text in every vocabulary of some size; the first few hundred are often special.
_TOKEN_IDS = range(1000, 20_000)
_BLOCKS = {1: 8, 16: 3, 32: 2}  # requests of each user in a block, by the number of users
# Streams at a time, events of each, and seconds between them: about 2,000 events a second.
_PACES = ((16, 200, 0.01), (64, 150, 0.035), (256, 50, 0.12), (1000, 20, 0.5))


@dataclass(frozen=True)
class Block:
    """One run of requests against one side: output tokens per second, and each request's time to first token."""

    tokens_per_s: float
    ttft_ms: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """Front door against bare child at one concurrency, one entry a repetition (A B B A)."""

    concurrency: int
    throughput_ratios: Sequence[float]
    added_ttft_ms: Sequence[float]


async def compare(
    direct: aiohttp.ClientSession,
    through: aiohttp.ClientSession,
    model: str,
    concurrency: int,
    rounds: int,
    blocks: int,
) -> Comparison:
    """Run `rounds` repetitions of A B B A with `blocks` requests for each user in a block."""
    prompts = _prompts(seed=concurrency)
    ratios, added = [], []
    for _ in range(rounds):
        sides: dict[str, list[Block]] = {"A": [], "B": []}
        for side in "ABBA":
            session = direct if side == "A" else through
            sides[side].append(await _run(session, model, concurrency, blocks, prompts))
        speed = {side: statistics.mean(block.tokens_per_s for block in run) for side, run in sides.items()}
        ttft = {
            side: statistics.median(itertools.chain.from_iterable(block.ttft_ms for block in run))
            for side, run in sides.items()
        }
        ratios.append(speed["B"] / speed["A"])
        added.append(ttft["B"] - ttft["A"])
    return Comparison(concurrency, ratios, added)


async def _run(
    session: aiohttp.ClientSession, model: str, users: int, requests: int, prompts: Iterator[list[int]]
) -> Block:
    ttft_ms: list[float] = []
    draw = random.Random(users)  # noqa: S311 # a workload must be repeatable
    lengths = [[draw.choice(OUTPUT_TOKENS) for _ in range(requests)] for _ in range(users)]

    async def user(output_tokens: Sequence[int]) -> None:
        for length in output_tokens:
            spent_ms = await _complete(session, model, next(prompts), length)
            ttft_ms.append(spent_ms)

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for output_tokens in lengths:
            group.create_task(user(output_tokens))
    spent_s = time.perf_counter() - begin
    return Block(sum(map(sum, lengths)) / spent_s, ttft_ms)


async def _complete(session: aiohttp.ClientSession, model: str, prompt: list[int], output_tokens: int) -> float:
    """One streamed completion; its time to first token in milliseconds. Raises ValueError when it is not whole."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin = time.perf_counter()
    first = None
    last = b""
    async with session.post("/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter()
                last = line
    usage = json.loads(last.removeprefix(b"data: "))["usage"]
    if first is None or usage["completion_tokens"] != output_tokens:
        raise ValueError(f"expected {output_tokens} tokens, got {usage}")
    return (first - begin) * 1000


def _prompts(seed: int) -> Iterator[list[int]]:
    """Endless prompts, no two alike, so that no prefix is found in the cache."""
    source = random.Random(seed)  # noqa: S311 # a workload must be repeatable
    while True:
        yield source.choices(_TOKEN_IDS, k=PROMPT_TOKENS)


async def measure(url: str, model: str, users: Sequence[int], rounds: int) -> list[Comparison]:
    """All comparisons against the platform at `url`."""
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as through:
        async with through.get("/status") as response:
            status = await response.json()
        socket = next(entry["socket"] for entry in status["models"] if entry["name"] == model)
        connector = aiohttp.UnixConnector(socket, limit=0)
        async with aiohttp.ClientSession("http://localhost", connector=connector) as direct:
            await _run(through, model, 2, 1, _prompts(seed=0))  # warm both
            await _run(direct, model, 2, 1, _prompts(seed=1))
            return [
                await compare(direct, through, model, concurrency, rounds, _BLOCKS[concurrency])
                for concurrency in users
            ]


class _Client(asyncio.Protocol):
    """One stream after the other on one connection, read and counted."""

    def __init__(self, request: bytes, streams: int) -> None:
        self.events: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._request = request
        self._left = streams
        self._count = 0
        self._head = self._tail = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count, and at the end of a stream ask again."""
        self._head = self._head or data[:300]
        self._count += data.count(stand_in.EVENT)
        self._tail = (self._tail + data)[-len(stand_in.END) :]
        if self._tail == stand_in.END:
            self._left -= 1
            if self._left:
                self._transport.write(self._request)
            else:
                self.events.set_result(self._count)
                self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Too early, if the streams are not whole."""
        if not self.events.done():
            message = f"a stream broke off after {self._count} events: {error}, {self._head!r}"
            self.events.set_exception(ConnectionResetError(message))


async def _read_streams(port: int, streams: int, events: int, wait_s: float) -> int:
    """Read so many streams at a time, begun one after the other within `wait_s`; the number of events."""
    document = {"model": stand_in.NAME, "prompt": "x" * 200, "stream": True, "events": events, "wait_s": wait_s}
    body = json.dumps(document).encode()
    head = f"POST {stand_in.PATH} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(streams):
        _, client = await loop.create_connection(lambda: _Client(request, 1), "127.0.0.1", port)
        clients.append(client)
        await asyncio.sleep(wait_s / streams)
    return sum(await asyncio.gather(*(client.events for client in clients)))


def measure_events(against: Path | None, port: int, rounds: int) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Microseconds an event, by the number of streams and the checkout."""
    checkouts = {"B": Path(__file__).parents[2]} | ({} if against is None else {"A": against})
    spent: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ports = {side: port + index for index, side in enumerate(checkouts)}
        pids = {
            side: stack.enter_context(
                stand_in.serving(Path(name), {stand_in.NAME: stand_in.MODEL}, ports[side], checkout)
            )
            for side, checkout in checkouts.items()
        }
        for streams, events, wait_s in _PACES:
            for side in ("ABBA" if against else "BB") * rounds:
                before_us = stand_in.processor_us(pids[side])
                count = uvloop.run(_read_streams(ports[side], streams, events, wait_s))
                sides = spent.setdefault(str(streams), {})
                sides.setdefault(side, []).append((stand_in.processor_us(pids[side]) - before_us) / count)
    return spent


def _print_events(spent: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    print("streams  checkout  us an event (median, least..most)  events a second of a core")
    for streams, sides in spent.items():
        for side, values in sorted(sides.items()):
            median_us = statistics.median(values)
            spread = f"({min(values):.1f}..{max(values):.1f})"
            print(f"{streams:>7}  {side:>8}  {median_us:>10.1f}  {spread:<22}  {1e6 / median_us:>10,.0f}")


def main() -> int:
    """Print a table, the load of the machine, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    vllm = commands.add_parser("vllm", help="against the bare process of a running platform")
    vllm.add_argument("--url", default="http://127.0.0.1:8000")
    vllm.add_argument("--model", required=True)
    vllm.add_argument("--users", nargs="+", type=int, choices=_BLOCKS, default=list(_BLOCKS))
    vllm.add_argument("--rounds", type=int, default=3, help="repetitions of A B B A")
    events = commands.add_parser("events", help="processor time for an event, over a stand-in")
    events.add_argument("--against", type=Path, help="another checkout")
    events.add_argument("--port", type=int, default=8125, help="the first of two")
    events.add_argument("--rounds", type=int, default=2, help="repetitions of A B B A")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    if arguments.command == "events":
        spent = measure_events(arguments.against, arguments.port, arguments.rounds)
        _print_events(spent)
        document: object = spent
    else:
        results = asyncio.run(measure(arguments.url, arguments.model, arguments.users, arguments.rounds))
        _print_comparisons(results)
        document = [vars(result) for result in results]
    print(f"load before and after: {load:.1f}, {os.getloadavg()[0]:.1f}")
    print(json.dumps(document))
    return 0


def _print_comparisons(results: Sequence[Comparison]) -> None:
    print("concurrency  throughput B/A (median, least..most)  added median ttft, ms")
    for result in results:
        ratios, added = result.throughput_ratios, result.added_ttft_ms
        print(
            f"{result.concurrency:>11}  {statistics.median(ratios):.3f}  ({min(ratios):.3f}..{max(ratios):.3f})"
            f"                  {statistics.median(added):+.2f}  ({min(added):+.2f}..{max(added):+.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
