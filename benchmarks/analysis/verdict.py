"""Why the API is slower than the bare model, and what to change: the verdict on a ladder.

It names the layer that takes the most time, what usually makes it slow, and the setting that addresses it, if any. An
engine brings the causes of its own layers (`benchmarks.rungs.harness`). The advice is a guess until `--confirm` has
tried it; there is none where the hardware is the limit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.analysis.breakdown import Breakdown
from benchmarks.analysis.layer import ClientLayer, Layer

# Below this share of the latency a layer is not worth a setting.
_WORTH = 0.05


@dataclass(frozen=True)
class Situation:
    """What the verdict looks at: one rung, measured, beside its reference.

    `subject` is what the summary calls the rung, `model` the model's settings. `users` is how many requests the rung
    works on at a time. `on_cpu` is whether the model computes on the processors; `ratio` is its throughput against the
    reference's; `busy_share` is the share of the machine's processors in use (None: not measured). `best_batch` is the
    batch size at which the bare model was fastest (None: not measured).
    """

    subject: str
    model: Any
    time: Breakdown
    users: int
    cores: int
    on_cpu: bool
    reference: str
    ratio: float | None
    busy_share: float | None
    best_batch: int | None = None


@dataclass(frozen=True)
class Advice:
    """A setting of the model that addresses a layer: its name below `models.NAME`, and the value to try."""

    setting: str
    value: Any


Explanation = tuple[str, Advice | None]
"""Why a layer takes its time, and the setting that addresses it."""

Cause = Callable[[Situation, float], Explanation]
"""Explains a layer that takes this share of the latency."""


@dataclass(frozen=True)
class Verdict:
    """The layer that takes the most time, its share of the latency and its likely cause; the same of serving; advice.

    `row` and `serving_row` are labels. `reason` is why the advice is given: it is about the largest layer that a
    setting addresses.
    """

    row: str
    share: float
    serving_row: str
    serving_share: float
    cause: str
    advice: Advice | None
    reason: str | None
    summary: str


def judge(situation: Situation, causes: Mapping[Layer, Cause]) -> Verdict:
    """The verdict on one ladder; `causes` are those of the engine's layers."""
    shares = {row.layer: row.seconds / situation.time.e2e_s for row in situation.time.rows}
    by_share = sorted(shares, key=lambda layer: -shares[layer])
    largest, serving = by_share[0], next(layer for layer in by_share if layer.serves)
    explanations = [_explain(situation, layer, shares[layer], causes) for layer in by_share if shares[layer] >= _WORTH]
    cause = explanations[0][0] if explanations else "no single layer costs much"
    reason, advice = next(((text, advice) for text, advice in explanations if advice is not None), (None, None))
    return Verdict(
        row=largest.label,
        share=shares[largest],
        serving_row=serving.label,
        serving_share=shares[serving],
        cause=cause,
        advice=advice,
        reason=reason,
        summary=_summary(situation, largest, shares[largest]),
    )


def _explain(situation: Situation, layer: Layer, share: float, causes: Mapping[Layer, Cause]) -> Explanation:
    cause = causes.get(layer) or _CLIENT_CAUSES.get(layer)
    return cause(situation, share) if cause else (f"{layer.label} takes {share:.0%} of the time", None)


def _summary(situation: Situation, layer: Layer, share: float) -> str:
    largest = f"{share:.0%} of the latency is {layer.label}"
    if situation.ratio is None:
        return largest
    times = "times" if situation.ratio > 1 else "of"
    return f"{situation.subject} reaches {situation.ratio:.2f} {times} {situation.reference}'s throughput; {largest}"


def _explain_client(situation: Situation, share: float) -> Explanation:
    del situation
    return f"the load generator and the network take {share:.0%} of the time, not the server", None


_CLIENT_CAUSES: Mapping[Layer, Cause] = {
    ClientLayer.NETWORK: _explain_client,
    ClientLayer.LATENESS: _explain_client,
}
