"""The store: a Redis or Valkey in which several gateways count the requests and tokens of keys together.

All that goes to it goes over one connection, in order, and what comes at the same time in one round trip: a request
that ends is counted before the next one of its caller. Where the store does not answer in time, each gateway goes on
with its own counts, and no request waits for the store until it answers again.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge

from servers.gateway.limits import scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

_log = logging.getLogger("litport.gateway")

_T = TypeVar("_T")

# It counts twice: see `_bounded`.
_TIMEOUT_S = 0.05
_CONNECT_TIMEOUT_S = 2.0
_RETRY_S = 1.0
# Two renewals may fail before a lease ends.
_RENEWAL_S = scripts.LEASE_S / 3
_MOST_AT_A_TIME = 256


@dataclass(frozen=True)
class Verdict:
    """Whether too many requests of the key run, and how long its rates have no room; without any, it is let in."""

    is_full: bool
    requests_wait_s: float
    tokens_wait_s: float


@dataclass(eq=False)
class _Operation:
    """A script to run for a key; `answer` is None where nobody waits for it, and gets None where the store is away."""

    script: str
    key: str
    arguments: list[str]
    answer: "asyncio.Future[list[int] | None] | None" = None


@dataclass
class _Traffic:
    """What waits to be sent, and what was sent and is not answered."""

    waiting: list[_Operation] = field(default_factory=list)
    under_way: list[_Operation] = field(default_factory=list)

    def give_up(self) -> None:
        """Answer all of it with None."""
        for operation in (*self.under_way, *self.waiting):
            if operation.answer is not None and not operation.answer.done():
                operation.answer.set_result(None)
        self.under_way, self.waiting = [], []


class Store:
    """The store at this address; an async context manager, for one event loop. Its series are in the registry."""

    def __init__(self, url: str, registry: CollectorRegistry) -> None:
        self._url = url
        self._address = _address(url)
        self._leases: dict[str, str] = {}
        self._numbers = itertools.count()
        self._gateway = secrets.token_hex(8)
        self._traffic = _Traffic()
        self._news = asyncio.Event()
        self._problem: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._misses = Counter(
            "litport_limits_store_misses",
            "Requests that this gateway counted by itself, as the store of the limits of keys did not answer",
            registry=registry,
        )
        self._is_up = False
        state = Gauge("litport_limits_store_up", "Whether the store of the limits of keys answers", registry=registry)
        state.set_function(lambda: self._is_up)

    async def __aenter__(self) -> "Store":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell the store which requests have ended, if it takes it."""
        assert self._task is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                while self._is_up and (self._traffic.waiting or self._traffic.under_way):  # noqa: ASYNC110 # no event
                    await asyncio.sleep(0.001)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def lease(self) -> str:
        """A new name for a request that runs."""
        return f"{self._gateway}:{next(self._numbers)}"

    async def enter(
        self, key: str, lease: str, max_in_flight: int | None, costs_s: tuple[float | None, float | None]
    ) -> Verdict | None:
        """Count a request of the key if its limits allow it; None where the store cannot say.

        `costs_s` is what it takes of the minute of requests and of tokens, None without such a limit.
        """
        answer: list[int] | None = None
        if self._is_up:
            costs = [_text(cost_s) for cost_s in costs_s]
            future: asyncio.Future[list[int] | None] = asyncio.get_running_loop().create_future()
            most = -1 if max_in_flight is None else max_in_flight
            self._send(_Operation("enter", key, [lease, str(most), *costs], future))
            answer = await future
        if answer is None:
            self._misses.inc()
            return None
        is_full, requests_wait_us, tokens_wait_us = answer
        return Verdict(bool(is_full), requests_wait_us / 1e6, tokens_wait_us / 1e6)

    def hold(self, key: str, lease: str) -> None:
        """The request runs until it leaves; should the store have lost it, it is counted there again."""
        self._leases[lease] = key

    def leave(self, key: str, lease: str, correction_s: float) -> None:
        """The request has ended; it has taken so much more of the minute of tokens than it entered with."""
        has_lease = self._leases.pop(lease, None) is not None
        if self._is_up and (has_lease or correction_s):
            self._send(_Operation("leave", key, [lease, f"{correction_s:.6f}"]))

    def _send(self, operation: _Operation) -> None:
        self._traffic.waiting.append(operation)
        self._news.set()

    async def _run(self) -> None:
        """Talk to the store, and look for it again when it is away, until cancelled."""
        while True:
            client = _client(self._url)
            try:
                await self._serve(client)
            except Exception as problem:  # whatever it is, requests go on
                self._note(f"{problem}" or type(problem).__name__)
            finally:
                self._is_up = False
                self._traffic.give_up()
                with contextlib.suppress(Exception):  # it is broken already
                    await _bounded(client.aclose(), _TIMEOUT_S)
            await asyncio.sleep(_RETRY_S)

    async def _serve(self, client: "Redis") -> None:
        """Run what comes, and renew the leases. Raises an error once the store does not answer as it should."""
        texts = {"enter": scripts.ENTER, "leave": scripts.LEAVE, "renew": scripts.RENEW}
        digests = {name: await _bounded(client.script_load(text), _CONNECT_TIMEOUT_S) for name, text in texts.items()}
        self._renew()
        await self._exchange(client, digests)
        self._note(None)
        self._is_up = True
        loop = asyncio.get_running_loop()
        renewal_s = loop.time() + _RENEWAL_S
        while True:
            timer = loop.call_at(renewal_s, self._news.set)
            await self._news.wait()
            timer.cancel()
            self._news.clear()
            if loop.time() >= renewal_s:
                self._renew()
                renewal_s = loop.time() + _RENEWAL_S
                if not self._traffic.waiting:  # else nobody would notice that it is away
                    await _bounded(client.ping(), _TIMEOUT_S)
            while self._traffic.waiting:
                await self._exchange(client, digests)

    async def _exchange(self, client: "Redis", digests: dict[str, str]) -> None:
        """Send what waits, in order, and hand on the answers."""
        traffic = self._traffic
        traffic.under_way, traffic.waiting = traffic.waiting[:_MOST_AT_A_TIME], traffic.waiting[_MOST_AT_A_TIME:]
        pipeline = client.pipeline(transaction=False)
        for operation in traffic.under_way:
            pipeline.evalsha(digests[operation.script], 2, *scripts.places(operation.key), *operation.arguments)
        results: list[Any] = await _bounded(pipeline.execute(), _TIMEOUT_S)
        for operation, result in zip(traffic.under_way, results, strict=True):
            if operation.answer is not None and not operation.answer.done():
                operation.answer.set_result(result)
        traffic.under_way = []

    def _renew(self) -> None:
        leases: dict[str, list[str]] = {}
        for lease, key in self._leases.items():
            leases.setdefault(key, []).append(lease)
        # Before what waits: a request that leaves stays away.
        self._traffic.waiting[:0] = [_Operation("renew", key, leases[key]) for key in leases]

    def _note(self, problem: str | None) -> None:
        """Say once that the store is away or back."""
        if problem is not None and self._problem is None:
            message = "limits.redis_url: %s does not answer (%s); this gateway counts requests and tokens by itself"
            _log.warning(message, self._address, problem)
        elif problem is None and self._problem is not None:
            _log.warning("limits.redis_url: %s answers again", self._address)
        self._problem = problem


def _client(url: str) -> "Redis":
    """A client that tries nothing again and waits for ever: the limits are ours."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None, decode_responses=True
    )


async def _bounded(work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
    """What the work returns. Raises TimeoutError after `timeout_s`, or after twice that where this process was held up.

    When the loop stood still, time is over before it has read what had come; the second wait lets it read.
    """
    task = asyncio.ensure_future(work)
    try:
        for _ in range(2):
            await asyncio.wait({task}, timeout=timeout_s)
            if task.done():
                return task.result()
    finally:
        task.cancel()
    raise TimeoutError(f"no answer within {timeout_s * 1000:.0f} ms")


def _address(url: str) -> str:
    """The address without its user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _text(cost_s: float | None) -> str:
    return "-1" if cost_s is None else f"{cost_s:.6f}"
