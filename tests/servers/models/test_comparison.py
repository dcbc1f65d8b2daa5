"""Two versions of a model are asked the same: which answers count as equal, and which version as slower."""

import asyncio
import json
from typing import Any

import pytest

from servers.models import comparison
from servers.models.question import Question
from servers.models.trial import Limits
from tests.services.instances import Answering, answering

CHAT = "/v1/chat/completions"
# ms of the old and the new version, both vLLM with the same weights, on two cores beside a load of 7: the medians are
# 1589 and 2397. The first answer of the new one was its first at all.
ALIKE_MS = (
    *((1571, 7972), (2319, 2483), (3590, 5395), (2854, 2397)),
    *((1098, 1380), (1589, 780), (5546, 2809), (1486, 868)),
)


def test_a_recording_keeps_the_last_requests_that_differ() -> None:
    recording, successor = comparison.Recording(2), comparison.Recording(2)
    for body in (b"1", b"2", b"3", b"2", b"2", bytes(2**17)):
        recording.note(CHAT, body, None)
    assert recording.last(5) == [Question(CHAT, b"3"), Question(CHAT, b"2")]
    assert recording.last(1) == [Question(CHAT, b"2")]
    successor.note(CHAT, b"3", None)
    successor.extend(recording)
    assert successor.last(2) == recording.last(2)


def equal(old: Answering, new: Answering, *bodies: bytes, path: str | None = CHAT) -> int:
    """How many answers are equal."""
    questions = [Question(path, body) for body in bodies or (b"{}",)]
    return asyncio.run(comparison.compare(answering(old), answering(new), questions)).equal


@pytest.mark.parametrize(
    ("before", "after", "is_equal"),
    [
        ({"id": "a", "created": 1, "text": "Paris"}, {"id": "b", "created": 2, "text": "Paris"}, True),
        ({"text": "Paris"}, {"text": "Rome"}, False),
        ({"data": [{"embedding": [1.0, 0.0]}]}, {"data": [{"embedding": [1.0, 0.04]}]}, True),
        ({"data": [{"embedding": [1.0, 0.0]}]}, {"data": [{"embedding": [1.0, 0.05]}]}, False),
        ({"predictions": [{"label": "a", "score": 0.9}]}, {"predictions": [{"label": "a", "score": 0.5}]}, True),
        ({"predictions": [{"label": "a", "score": 0.9}]}, {"predictions": [{"label": "b", "score": 0.9}]}, False),
    ],
)
def test_vectors_are_compared_by_angle_classes_by_the_best_and_the_rest_by_content(
    before: Any, after: Any, is_equal: bool
) -> None:
    assert equal(lambda path, body: before, lambda path, body: after) == is_equal


def test_a_language_model_is_asked_for_its_likeliest_whole_answer_and_others_as_the_caller_did() -> None:
    seen: list[Any] = []
    body = json.dumps({"stream": True, "temperature": 1.5, "n": 1}).encode()
    for path in (CHAT, None):
        equal(lambda path, body: seen.append(json.loads(body)), lambda path, body: None, body, path=path)
    assert seen == [{"temperature": 0, "n": 1}, {"temperature": 1.5, "n": 1}]


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(0.4, 0.7)] * 8, True),
        ([(0.4, 0.7)] * 11 + [(0.6, 0.7)], True),
        ([(0.4, 0.7)] * 4, None),
        ([(0.4, 0.7)] * 5 + [(0.6, 0.7)] * 3, None),
        ([(0.4, 0.7)] * 4 + [(0.6, 0.7)] * 4, False),
        ([(old_ms / 1000, new_ms / 1000) for old_ms, new_ms in ALIKE_MS], False),
        ([], False),
    ],
)
def test_a_version_is_slower_where_more_pairs_say_so_than_chance_would(
    pairs: list[tuple[float, float]], verdict: bool | None
) -> None:
    assert comparison.is_slower(pairs, Limits(slowdown=1.5)) is verdict
