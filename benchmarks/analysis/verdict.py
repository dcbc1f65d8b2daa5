"""Why is the API slower than the bare model, and what should be changed: the verdict on a ladder.

It names the row that takes the most time, says what usually makes it large, and where a setting addresses it, which.
Its advice is a guess until `--confirm` has tried it; it gives none where the hardware is the limit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.analysis.breakdown import Breakdown
from configs.settings import LitServeModel, VllmModel

# Below this share of the latency a row is not worth a setting.
_WORTH = 0.05
_MODEL_ROWS = frozenset({"prefill", "decode", "predict", "model", "encode"})
# This share of the cores in use, and there is none left to give.
_BUSY = 0.85


@dataclass(frozen=True)
class Situation:
    """What the verdict looks at: the rung that Litport serves, measured, beside its reference.

    `on_cpu` is whether the model computes on the processors; `ratio` is its throughput against the reference's;
    `busy_share` is the share of the machine's processors in use (None: not measured).
    """

    model: VllmModel | LitServeModel
    time: Breakdown
    users: int
    cores: int
    on_cpu: bool
    reference: str
    ratio: float | None
    busy_share: float | None


@dataclass(frozen=True)
class Advice:
    """A setting of the model that addresses a row: its name below `models.NAME`, and the value to try."""

    setting: str
    value: Any


@dataclass(frozen=True)
class Verdict:
    """The dominant row, its share of the latency and its likely cause; the dominant row of serving alone; advice.

    `reason` is why the advice is given: it is about the largest row that a setting addresses.
    """

    row: str
    share: float
    serving_row: str
    serving_share: float
    cause: str
    advice: Advice | None
    reason: str | None
    summary: str


def judge(situation: Situation) -> Verdict:
    """The verdict on one ladder."""
    e2e_s = situation.time.e2e_s
    shares = {row.name: row.seconds / e2e_s for row in situation.time.rows}
    row = max(shares, key=lambda name: shares[name])
    serving = {name: share for name, share in shares.items() if name not in _MODEL_ROWS}
    serving_row = max(serving, key=lambda name: serving[name])
    large = [name for name in sorted(shares, key=lambda name: -shares[name]) if shares[name] >= _WORTH]
    explained = [_explain(situation, name, shares[name]) for name in large]
    cause = explained[0][0] if explained else "no single layer costs much"
    reason, advice = next(((said, found) for said, found in explained if found is not None), (None, None))
    summary = _summary(situation, row, shares[row])
    return Verdict(row, shares[row], serving_row, serving[serving_row], cause, advice, reason, summary)


def _explain(situation: Situation, row: str, share: float) -> "Explanation":
    explain = _CAUSES.get(row)
    return explain(situation, share) if explain else (f"{row} takes {share:.0%} of the time", None)


def _summary(situation: Situation, row: str, share: float) -> str:
    words = f"{share:.0%} of the latency is {row}"
    if situation.ratio is None:
        return words
    return f"Litport reaches {situation.ratio:.2f} of {situation.reference}'s throughput; {words}"


Explanation = tuple[str, Advice | None]


def _decode(situation: Situation, share: float) -> Explanation:
    if isinstance(situation.model, LitServeModel):
        return f"decoding the requests takes {share:.0%} of the time", None
    return (
        f"the model itself: {share:.0%} of the time it generates, each step for all {situation.users} requests under "
        "way; fewer users make it shorter, a smaller or quantised model, or faster hardware",
        None,
    )


def _prefill(situation: Situation, share: float) -> Explanation:
    args = situation.model.args if isinstance(situation.model, VllmModel) else {}
    said = f"reading the prompts takes {share:.0%} of the time, while requests that generate wait for it"
    if args.get("enable-prefix-caching") is False:
        return f"{said}; prefix caching is off", Advice("args.enable-prefix-caching", True)
    return f"{said}; prompts that begin alike are read once if the prefix cache is on", None


def _hand_over(situation: Situation, share: float) -> Explanation:
    del situation
    return (
        f"new requests wait {share:.0%} of the time for the step that is running, and for their tokens to come back; "
        "shorter steps (fewer tokens a step) make it shorter and throughput lower",
        None,
    )


def _scheduler_queue(situation: Situation, share: float) -> Explanation:
    assert isinstance(situation.model, VllmModel)
    chosen = situation.model.args.get("max-num-seqs")
    said = f"requests wait {share:.0%} of the time until the scheduler takes them"
    if isinstance(chosen, int) and chosen < situation.users:
        advice = Advice("args.max-num-seqs", situation.users)
        return f"{said}: it takes {chosen} at a time, of {situation.users}", advice
    return f"{said}: the KV cache is full, or too many tokens are asked for at a time", None


def _http(situation: Situation, share: float) -> Explanation:
    said = f"vLLM's HTTP server takes {share:.0%} of the time to write events"
    assert isinstance(situation.model, VllmModel)
    if "stream-interval" in situation.model.args:
        return said, None
    return f"{said}: one for each token", Advice("args.stream-interval", 4)


def _queue(situation: Situation, share: float) -> Explanation:
    return _workers(situation, f"requests wait {share:.0%} of the time for a worker")


def _batch_wait(situation: Situation, share: float) -> Explanation:
    wait_s = situation.model.batch_timeout_s if isinstance(situation.model, LitServeModel) else None
    said = f"batches wait {share:.0%} of the time to fill"
    return (said, Advice("batch_timeout_s", wait_s / 4)) if wait_s and wait_s > 0.001 else (said, None)


def _litserve_http(situation: Situation, share: float) -> Explanation:
    said = f"LitServe's HTTP server takes {share:.0%} of the time"
    if not isinstance(situation.model, LitServeModel):
        return said, None
    servers = situation.model.api_server_count or situation.model.workers_per_device or 1
    if servers >= situation.cores and situation.busy_share is not None and situation.busy_share >= _BUSY:
        return f"{said}, and the processors are all in use", None
    return said, Advice("api_server_count", servers + 1)


def _predict(situation: Situation, share: float) -> Explanation:
    return _workers(situation, f"the model itself: {share:.0%} of the time a request is in a batch that is predicted")


def _workers(situation: Situation, said: str) -> Explanation:
    """What is to be done about work that waits for workers: more of them, or larger batches, or nothing."""
    model = situation.model
    if not isinstance(model, LitServeModel):
        return said, None
    if situation.busy_share is None:
        return said, None
    busy = situation.busy_share >= _BUSY
    workers = model.workers_per_device or 1
    if workers < situation.cores and situation.on_cpu:
        why = "the threads of a worker wait for each other" if busy else "processors are idle"
        return f"{said}, and {why}", Advice("workers_per_device", min(situation.cores, workers * 2))
    if busy:
        return f"{said}, and the processors are all in use: the model is the limit", None
    batch = model.max_batch_size or 1
    if batch < situation.users:
        return f"{said}; batches hold {batch}", Advice("max_batch_size", min(situation.users, 2 * batch))
    return said, None


def _client(situation: Situation, share: float) -> Explanation:
    del situation
    return f"the load generator and the network take {share:.0%} of the time, not the server", None


_CAUSES: Mapping[str, Callable[[Situation, float], Explanation]] = {
    "decode": _decode,
    "prefill": _prefill,
    "template, tokenise, hand-over": _hand_over,
    "scheduler queue": _scheduler_queue,
    "HTTP, JSON, SSE in vLLM": _http,
    "queue": _queue,
    "batch wait": _batch_wait,
    "HTTP and parsing in LitServe": _litserve_http,
    "return": _litserve_http,
    "predict": _predict,
    "network, accept, client read": _client,
    "client lateness": _client,
}
