"""Overload: three times what a model can do, and what becomes of those that it lets in.

    python -m tests.withstand.overload http://127.0.0.1:8000 MODEL [--seconds 30]

It finds the model's capacity with as many users as the model runs at a time, sends that rate and three times that rate
at random moments (a Poisson process, which does not wait for answers), A B B A, and then looks how soon a lone request
is as quick as before. Latency counts from the moment a request was due. It refuses to retry: a refused request is gone.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

OVERLOAD = 3
_QUICK_AGAIN = 2.0


@dataclass
class Phase:
    """What one phase saw; times in seconds."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    ttft_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)
    retry_after_s: list[int] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Answered requests a second."""
        return self.statuses[200] / self.seconds

    def add(self, other: "Phase") -> None:
        """Count another one of the same kind in."""
        self.seconds += other.seconds
        self.statuses += other.statuses
        self.ttft_s += other.ttft_s
        self.refusal_s += other.refusal_s
        self.retry_after_s += other.retry_after_s


@dataclass(frozen=True)
class Target:
    """Where the requests go, and what each says."""

    url: str
    body: dict[str, Any]

    async def ask(self, session: aiohttp.ClientSession, phase: Phase, due_s: float) -> float | None:
        """Send one request and note what came; returns when its first byte came, for one that was answered."""
        first_s: float | None = None
        async with session.post(self.url, json=self.body) as answer:
            async for _ in answer.content.iter_any():
                first_s = first_s or time.perf_counter() - due_s
            phase.statuses[answer.status] += 1
            if answer.status == 200 and first_s is not None:
                phase.ttft_s.append(first_s)
                return first_s
            phase.refusal_s.append(time.perf_counter() - due_s)
            if "retry-after" in answer.headers:
                phase.retry_after_s.append(int(answer.headers["retry-after"]))
        return None


async def capacity(session: aiohttp.ClientSession, target: Target, users: int, seconds: float) -> Phase:
    """So many users, each of whom sends the next request when the last is answered."""
    phase = Phase()
    begin_s = time.perf_counter()

    async def user() -> None:
        while time.perf_counter() - begin_s < seconds:
            await target.ask(session, phase, time.perf_counter())

    await asyncio.gather(*(user() for _ in range(users)))
    phase.seconds = time.perf_counter() - begin_s
    return phase


async def arrivals(
    session: aiohttp.ClientSession, target: Target, per_s: float, seconds: float, seed: random.Random
) -> Phase:
    """Requests at random moments, so many a second; goodput counts those answered by the end of the last."""
    phase = Phase()
    begin_s = time.perf_counter()
    due_s, sent = begin_s, []
    while (due_s := due_s + seed.expovariate(per_s)) < begin_s + seconds:
        await asyncio.sleep(due_s - time.perf_counter())
        sent.append(asyncio.create_task(target.ask(session, phase, due_s)))
    phase.seconds = seconds
    await asyncio.gather(*sent)
    return phase


async def back_to_normal(session: aiohttp.ClientSession, target: Target, usual_s: float) -> float:
    """How long after the overload until a lone request is about as quick as usual, in seconds."""
    begin_s = time.perf_counter()
    while True:
        first_s = await target.ask(session, Phase(), time.perf_counter())
        if first_s is not None and first_s < _QUICK_AGAIN * usual_s:
            return time.perf_counter() - begin_s
        assert time.perf_counter() - begin_s < 60, "it did not recover"


async def run(target: Target, users: int, seconds: float, seed: int = 1) -> dict[str, Any]:
    """All of it; the result as a JSON document. Times in seconds, rates in requests a second."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        alone = await capacity(session, target, 1, min(seconds, 10))
        peak = await capacity(session, target, users, seconds)
        rates = random.Random(seed)
        once, thrice, recovery_s = Phase(), Phase(), []
        for factor, phase in ((1, once), (OVERLOAD, thrice), (OVERLOAD, thrice), (1, once)):
            phase.add(await arrivals(session, target, factor * peak.goodput, seconds, rates))
            if factor != 1:
                recovery_s.append(await back_to_normal(session, target, statistics.median(alone.ttft_s)))
    return {
        "users_at_peak": users,
        "peak_per_s": peak.goodput,
        "peak_ttft_p99_s": p99(peak.ttft_s),
        "once": told(once),
        "thrice": told(thrice),
        "goodput_to_peak": thrice.goodput / peak.goodput,
        "ttft_p99_to_once": p99(thrice.ttft_s) / p99(once.ttft_s),
        "ttft_p99_to_peak": p99(thrice.ttft_s) / p99(peak.ttft_s),
        "recovery_s": recovery_s,
    }


def told(phase: Phase) -> dict[str, Any]:
    """One kind of phase for the result."""
    return {
        "statuses": {str(status): count for status, count in sorted(phase.statuses.items())},
        "goodput_per_s": phase.goodput,
        "ttft_p50_s": statistics.median(phase.ttft_s),
        "ttft_p99_s": p99(phase.ttft_s),
        "refusal_p99_s": p99(phase.refusal_s) if phase.refusal_s else None,
        "retry_after_s": sorted(set(phase.retry_after_s)),
    }


def p99(times_s: Sequence[float]) -> float:
    """The 99th percentile, the larger neighbour."""
    return sorted(times_s)[min(len(times_s) - 1, int(0.99 * len(times_s)))]


def main() -> None:
    """Load a model that streams, such as vLLM's, with answers of 32 tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--users", type=int, default=8, help="as many as the model runs at a time (max_running)")
    parser.add_argument("--seconds", type=float, default=30, help="of each phase")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    chosen = parser.parse_args()
    body = {"model": chosen.model, "prompt": "Once upon a time", "max_tokens": chosen.tokens}
    body |= {"ignore_eos": True, "stream": True, "temperature": 0}
    target = Target(f"{chosen.url}/v1/completions", body)
    print(json.dumps(asyncio.run(run(target, chosen.users, chosen.seconds)), indent=2))


if __name__ == "__main__":
    main()
