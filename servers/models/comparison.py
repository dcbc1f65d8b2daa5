"""The comparison of two versions of a model: the same requests to both, the share of equal answers, the latencies."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from servers.models import question
from servers.models.instance import Instance, State
from servers.models.question import Answer, Question, QuestionError
from servers.models.trial import Limits, chance

# Vectors with a smaller cosine count as different.
_LEAST_COSINE = 0.999
# How likely a version that is just quick enough may be taken for a slow one, at each look.
_LARGEST_CHANCE = 0.01
_LONGEST_ANSWER_S = 120.0
_LONGEST_BODY_BYTES = 64 * 1024
# What decides whether the answer comes in parts, and is no part of the question.
_STREAMING = ("stream", "stream_options")
_GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


class Recording:
    """The last requests to a model, in memory only: at most `size` that differ, none longer than 64 KiB."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._questions: dict[Question, None] = {}  # the last one comes last

    def note(self, path: str | None, body: bytes, content_type: str | None) -> None:
        """Keep a request; `path` is None for one that predicts."""
        if len(body) <= _LONGEST_BODY_BYTES:
            self._keep(Question(path, body, content_type or "application/json"))

    def extend(self, recording: "Recording") -> None:
        """Keep the requests of another recording, too."""
        for earlier in recording._questions:
            self._keep(earlier)

    def last(self, count: int) -> list[Question]:
        """The last requests, at most so many, the oldest first."""
        return list(self._questions)[-count:]

    def _keep(self, question: Question) -> None:
        self._questions.pop(question, None)
        self._questions[question] = None
        if len(self._questions) > self._size:
            del self._questions[next(iter(self._questions))]


@dataclass(frozen=True)
class Comparison:
    """What came of `requests` that two versions were asked.

    `failures` counts those that the new one alone did not answer, or answered 5xx. `latencies_s` has how long the old
    and the new one took for each that both answered.
    """

    requests: int
    equal: int
    failures: int
    latencies_s: tuple[tuple[float, float], ...]

    @property
    def share(self) -> float:
        """The share of equal answers."""
        return self.equal / self.requests

    def __str__(self) -> str:
        return f"{self.equal} of {self.requests} answers equal ({self.share:.0%}), {medians(self.latencies_s)}"


def medians(latencies_s: Sequence[tuple[float, float]]) -> str:
    """The medians of the old and of the new version's latencies, for a message."""
    sides = zip(*latencies_s, strict=True) if latencies_s else ([], [])
    return "median " + " -> ".join(f"{1000 * _median(side):.1f} ms" if side else "-" for side in sides)


def is_slower(latencies_s: Sequence[tuple[float, float]], limits: Limits) -> bool | None:
    """Whether the new version takes longer than the limits allow; None where chance may be why it seems to.

    Pairs are judged one by one, since both answers of a pair were given at about the same time, and on a machine with
    other work the times of two pairs say little of each other. With the new version as quick as the limit, each pair is
    as likely slower as not (a sign test).
    """
    count = len(latencies_s)
    slower = sum(new_s > limits.longest_s(old_s) for old_s, new_s in latencies_s)
    if 2 * slower <= count:
        return False
    return True if chance(slower, count, 0.5) <= _LARGEST_CHANCE else None


async def compare(old: Instance, new: Instance, questions: Sequence[Question]) -> Comparison:
    """Ask both instances each question, one after the other, in turns the old and the new one first."""
    pairs: list[tuple[Answer | None, Answer | None]] = []
    for number, asked in enumerate(map(_deterministic, questions)):
        order = (old, new) if number % 2 == 0 else (new, old)
        answers = {id(instance): await _ask(instance, asked) for instance in order}
        pairs.append((answers[id(old)], answers[id(new)]))
    return Comparison(
        requests=len(pairs),
        equal=await asyncio.to_thread(lambda: sum(_is_same(*pair) for pair in pairs)),
        failures=sum(_has_failed(after) and not _has_failed(before) for before, after in pairs),
        latencies_s=tuple((before.duration_s, after.duration_s) for before, after in pairs if before and after),
    )


async def _ask(instance: Instance, asked: Question) -> Answer | None:
    if instance.state is not State.READY:
        return None
    try:
        async with asyncio.timeout(_LONGEST_ANSWER_S):
            return await question.ask(instance, asked)
    except (QuestionError, TimeoutError):
        return None


def _deterministic(asked: Question) -> Question:
    """The same question for a whole answer, and to an LLM for its likeliest one."""
    try:
        document: Any = msgspec.json.decode(asked.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return asked
    if not isinstance(document, dict):
        return asked
    document = {name: value for name, value in document.items() if name not in _STREAMING}
    if asked.path in _GENERATING:
        document["temperature"] = 0
    return replace(asked, body=msgspec.json.encode(document))


def _is_same(before: Answer | None, after: Answer | None) -> bool:
    if before is None or after is None:
        return before is after
    if before.status != after.status:
        return False
    if before.document is None:
        return before.body == after.body
    old, new = question.content(before.document), question.content(after.document)
    old_vectors, new_vectors = question.vectors(old), question.vectors(new)
    if old_vectors and len(old_vectors) == len(new_vectors):
        pairs = zip(old_vectors, new_vectors, strict=True)
        return all((question.cosine(*pair) or 0.0) >= _LEAST_COSINE for pair in pairs)
    if (labels := _best_class(old)) is not None:
        return bool(labels == _best_class(new))
    return question.is_equal(new, old)


def _best_class(document: Any) -> Any:
    """The likeliest label of a classifier's answer; None for any other answer."""
    try:
        return question.value_at(document, "predictions.0.label")
    except LookupError:
        return None


def _has_failed(answer: Answer | None) -> bool:
    return answer is None or answer.status >= 500


def _median(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(len(values) / 2) - 1]
