"""What the front door costs: the same vLLM process, asked on its own socket (A) and through the public port (B).

    litport serve configs/recipes/demo.yaml &
    python -m benchmarks.experiments.front_door --model smollm2-135m-instruct

Each block sends the same number of streamed completions of random tokens, of fixed lengths, by a closed loop of users.
Blocks are interleaved A B B A, so that drift of the machine cancels, and each repetition gives one ratio; the median,
least and most of the ratios are printed. A request that fails or is cut short ends the experiment with an error.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aiohttp

PROMPT_TOKENS = 64
OUTPUT_TOKENS = 32
# Token ids below this are ordinary text in every vocabulary of some size; the first few hundred are often special.
_TOKEN_IDS = range(1000, 20_000)


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

    async def user() -> None:
        for _ in range(requests):
            spent_ms = await _complete(session, model, next(prompts))
            ttft_ms.append(spent_ms)

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(user())
    spent_s = time.perf_counter() - begin
    return Block(users * requests * OUTPUT_TOKENS / spent_s, ttft_ms)


async def _complete(session: aiohttp.ClientSession, model: str, prompt: list[int]) -> float:
    """One streamed completion; its time to first token in milliseconds. Raises ValueError when it is not whole."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": OUTPUT_TOKENS,
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
    if first is None or usage["completion_tokens"] != OUTPUT_TOKENS:
        raise ValueError(f"expected {OUTPUT_TOKENS} tokens, got {usage}")
    return (first - begin) * 1000


def _prompts(seed: int) -> Iterator[list[int]]:
    """Endless prompts, no two alike, so that no prefix is found in the cache."""
    source = random.Random(seed)  # noqa: S311 # a workload must be repeatable
    while True:
        yield source.choices(_TOKEN_IDS, k=PROMPT_TOKENS)


async def measure(url: str, model: str, rounds: int) -> list[Comparison]:
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
                await compare(direct, through, model, concurrency, rounds, blocks)
                for concurrency, blocks in ((1, 8), (16, 2), (32, 2))
            ]


def main() -> int:
    """Print a table, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of A B B A")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.url, arguments.model, arguments.rounds))
    print("concurrency  throughput B/A (median, least..most)  added median ttft, ms")
    for result in results:
        ratios, added = result.throughput_ratios, result.added_ttft_ms
        print(
            f"{result.concurrency:>11}  {statistics.median(ratios):.3f}  ({min(ratios):.3f}..{max(ratios):.3f})"
            f"                  {statistics.median(added):+.2f}  ({min(added):+.2f}..{max(added):+.2f})"
        )
    print(json.dumps([vars(result) for result in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
