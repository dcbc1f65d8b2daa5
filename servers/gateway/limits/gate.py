"""The gate: where a request of a key enters and leaves, by the counts of the store where there is one that answers.

This gateway's own counts go on all the time, so that they are right when the store is away.
"""

from typing import NamedTuple

from servers.gateway.keys import Key
from servers.gateway.limits.store import Store


class Entry(NamedTuple):
    """A request that the store may count; `is_charged` is whether the store took its estimate of tokens."""

    lease: str
    is_charged: bool


class Gate:
    """Lets requests in by the limits of their keys; the store None counts for this gateway alone."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    async def enter(self, key: Key, tokens: int) -> Entry | None:
        """Let in a request of an estimated number of tokens, as `Key.enter` does; returns what `leave` needs.

        Raises ApiError 429. It takes one round trip to the store, which is bounded.
        """
        store = self._store
        if store is None or not key.is_limited:
            key.enter(tokens)
            return None
        key.check_size(tokens)
        lease = store.lease()
        costs_s = key.costs_s(tokens)
        verdict = await store.enter(key.name, lease, key.max_in_flight, costs_s)
        if verdict is None:
            key.enter(tokens)
        else:
            refusal = key.refusal(verdict.is_full, verdict.requests_wait_s, verdict.tokens_wait_s)
            if refusal is not None:
                raise refusal
            key.take(costs_s)
        if key.max_in_flight is not None:
            store.hold(key.name, lease)
        return Entry(lease, verdict is not None)

    def leave(self, key: Key, entry: Entry | None, estimated_tokens: int, used_tokens: int | None) -> None:
        """A request that entered with this estimate has ended; what it really used, where known, counts instead."""
        correction_s = key.leave(estimated_tokens, used_tokens)
        if self._store is not None and entry is not None:
            self._store.leave(key.name, entry.lease, correction_s if entry.is_charged else 0.0)
