"""Questions: whole requests that Litport itself puts to an instance, and what is read from the answers."""

import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from servers.engines.connection import CONNECTION_LOST, AnswerBrokenError
from servers.models.instance import Instance

# Fields of an answer that differ from one request to the next, whatever the model.
_VOLATILE = frozenset({"id", "created", "created_at", "request_id", "system_fingerprint", "model", "usage", "metrics"})


class QuestionError(Exception):
    """There was no whole answer; the message says why."""


@dataclass(frozen=True)
class Question:
    """A request: the route, None for the one that predicts, and its body."""

    path: str | None
    body: bytes
    content_type: str = "application/json"

    @classmethod
    def of_form(cls, path: str | None, file_name: str, content: bytes) -> "Question":
        """The upload of a file in the form field `file`."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return cls(path, body, f"multipart/form-data; boundary={boundary}")


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its bytes and how long it took."""

    status: int
    body: bytes
    duration_s: float

    @property
    def document(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


async def ask(instance: Instance, question: Question) -> Answer:
    """The whole answer of an instance that is up. Raises QuestionError where there is none."""
    card, connection = instance.card, instance.connection
    if card is None or connection is None:
        raise QuestionError("it is not up")
    path = question.path or card.predict_path
    if path is None:
        raise QuestionError("it does not predict; name a path")
    begin_s = time.perf_counter()
    try:
        reply = await connection.send("POST", path, question.body, {"content-type": question.content_type})
        body = await reply.read()
    except (AnswerBrokenError, *CONNECTION_LOST) as problem:
        raise QuestionError(f"it gave no answer: {problem or type(problem).__name__}") from None
    return Answer(reply.status, body, time.perf_counter() - begin_s)


def value_at(document: Any, path: str) -> Any:
    """The value at a path of names and indexes with dots between them. Raises LookupError."""
    value = document
    for part in path.split("."):
        if isinstance(value, Sequence) and not isinstance(value, str) and part.lstrip("-").isdigit():
            value = value[int(part)]
        elif isinstance(value, Mapping):
            value = value[part]
        else:
            raise LookupError(part)
    return value


def vectors(document: Any) -> list[list[float]]:
    """All lists of two numbers or more in a document, in their order."""
    return list(_vectors(document))


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The cosine of two vectors; None where they have no angle: other sizes, zeros, numbers that are not finite."""
    if len(one) != len(other):
        return None
    size = math.sqrt(sum(x * x for x in one) * sum(x * x for x in other))
    value = sum(x * y for x, y in zip(one, other, strict=True)) / size if size else math.nan
    return value if math.isfinite(value) else None


def content(document: Any) -> Any:
    """The document without what differs from one request to the next."""
    if isinstance(document, Mapping):
        return {name: content(value) for name, value in document.items() if name not in _VOLATILE}
    if isinstance(document, list):
        return [content(item) for item in document]
    return document


def is_equal(value: Any, expected: Any) -> bool:
    """Whether two JSON values are equal, numbers up to a millionth."""
    if isinstance(expected, bool) or isinstance(value, bool):
        return value is expected
    if isinstance(expected, int | float) and isinstance(value, int | float):
        return math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(expected, Mapping) and isinstance(value, Mapping):
        return value.keys() == expected.keys() and all(is_equal(value[name], expected[name]) for name in expected)
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(map(is_equal, value, expected))
    return bool(value == expected)


def excerpt(value: Any) -> str:
    """A value of an answer for one line of a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _vectors(value: Any) -> Iterator[list[float]]:
    if isinstance(value, Mapping):
        for below in value.values():
            yield from _vectors(below)
    elif isinstance(value, list):
        if len(value) > 1 and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
            yield value
        else:
            for item in value:
                yield from _vectors(item)
