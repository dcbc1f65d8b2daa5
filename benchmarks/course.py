"""The requests of a run, made once: those measured, those before them that are not counted, those for parity."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from benchmarks.load import arrivals, workload
from benchmarks.load.workload import Item
from configs.bench import Bench, Workload

_PARITY_TOKENS = 16
# Kinds whose prompts would come again, and what goes the same way with others.
_FRESH: Mapping[str, Mapping[str, Any]] = {"shared-prefix": {"kind": "tokens"}, "file": {"kind": "chat", "turns": 1}}
# Far apart, so that no two kinds of requests draw the same prompts.
_LEVEL_SEED = 4_000_037
_WARM_SEED = 1_000_003
_PARITY_SEED = 2_000_003


@dataclass(frozen=True)
class Course:
    """The requests that the settings ask for; `items` have the times at which they are due.

    Requests for parity are short and independent of each other. None of the warm-up's prompts comes again.
    """

    bench: Bench
    workload: Workload
    example: Any
    items: Sequence[Item]
    warmup: Sequence[Item]
    parity: Sequence[Item]
    _levels: dict[int, Sequence[Item]] = field(default_factory=dict)

    @classmethod
    def plan(cls, bench: Bench, kind: str | None, example: Any = None) -> Self:
        """Make the requests of a kind; `example` is the body of those of kind `example`. Raises UserError."""
        load = bench.workload.model_copy(update={"kind": kind})
        fresh = load.model_copy(update=_FRESH.get(kind or "", {}))
        parity = workload.make(load, bench.parity_prompts, load.seed + _PARITY_SEED, example=example)
        return cls(
            bench,
            load,
            example,
            items=_schedule(bench, load, load.seed, example),
            warmup=workload.make(fresh, bench.warmup_requests, load.seed + _WARM_SEED, example=example),
            parity=[
                msgspec.structs.replace(
                    workload.with_length(item, _PARITY_TOKENS) if item.output_tokens else item, after=None
                )
                for item in parity
            ],
        )

    def items_at(self, level: int) -> Sequence[Item]:
        """The items of a level of a ramp, which has prompts of its own; those of level 0 are `items`."""
        if level == 0:
            return self.items
        if level not in self._levels:
            seed = self.workload.seed + level * _LEVEL_SEED
            self._levels[level] = _schedule(self.bench, self.workload, seed, self.example)
        return self._levels[level]

    def digest(self) -> str:
        """A hash of the measured requests: two results with the same one had the same requests."""
        return hashlib.sha256(msgspec.msgpack.encode(self.items)).hexdigest()


def _schedule(bench: Bench, load: Workload, seed: int, example: Any) -> list[Item]:
    items = workload.make(load, load.requests, seed, example=example)
    return arrivals.schedule(items, bench.load, load.seed)
