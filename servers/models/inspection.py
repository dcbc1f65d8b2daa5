"""The inspection of an instance: the checks of its model, before it counts as ready.

A canary shows that an instance answers. The checks, which the settings have, show that its answers are right.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from configs.model import Check
from servers.models import question
from servers.models.instance import Instance
from servers.models.question import Answer, Question, QuestionError

# How long an answer may take whose check has no `within_s`.
_LONGEST_ANSWER_S = 120.0


class CheckError(Exception):
    """A check was not passed; the message names it, what was expected and what came."""


async def inspect(name: str, checks: Mapping[str, Check], instance: Instance) -> None:
    """Put each check of the model to the instance, one after the other. Raises CheckError for the first that fails."""
    for check_name, check in checks.items():
        limit_s = check.within_s or _LONGEST_ANSWER_S
        try:
            asked = question_of(check, name)
            async with asyncio.timeout(limit_s):
                answer = await question.ask(instance, asked)
            problem = await asyncio.to_thread(_problem, check, answer)
        except TimeoutError:
            limit = "within_s" if check.within_s else "no within_s is set"
            problem = f"no answer within {limit_s:g} s ({limit})"
        except (QuestionError, OSError) as error:
            problem = str(error)
        if problem:
            raise CheckError(f"check '{check_name}' failed: {problem}")


def question_of(check: Check, model_name: str) -> Question:
    """The request of a check to the model of this name. Raises OSError for a file that cannot be read."""
    if check.file is not None:
        return Question.of_form(check.path, check.file.name, check.file.read_bytes())
    body = check.body
    if isinstance(body, dict) and check.path is not None and check.path.startswith("/v1/"):
        body = {"model": model_name, **body}
    return Question(check.path, msgspec.json.encode(body))


def _problem(check: Check, answer: Answer) -> str:
    """What is wrong with the answer; "" for nothing."""
    if answer.status != check.status:
        return f"expected status {check.status}, got {answer.status}: {_text(answer)[:200]}"
    if check.contains is not None and check.contains not in _text(answer):
        return f"expected an answer with {check.contains!r}, got {_text(answer)[:200]!r}"
    document = answer.document
    for path, expected in check.equals.items():
        try:
            value = question.value_at(document, path)
        except LookupError:
            return f"expected {path} to be {question.excerpt(expected)}, the answer has none"
        if not question.is_equal(value, expected):
            return f"expected {path} to be {question.excerpt(expected)}, got {question.excerpt(value)}"
    return _distance_problem(check.reference, check.cosine, document) if check.reference is not None else ""


def _distance_problem(reference: Path, least: float, document: Any) -> str:
    try:
        expected = question.vectors(msgspec.json.decode(reference.read_bytes()))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"{reference} cannot be read as JSON: {error}"
    vectors = question.vectors(document)
    if not expected or len(vectors) != len(expected):
        return f"expected {len(expected)} vectors as in {reference}, got {len(vectors)}"
    cosines = [question.cosine(vector, other) for vector, other in zip(vectors, expected, strict=True)]
    lowest = min((-2.0 if value is None else value) for value in cosines)
    if lowest == -2.0:
        sizes = f"{len(vectors[0])} numbers in place of {len(expected[0])}"
        return f"its vectors cannot be compared with those of {reference}: {sizes}, or numbers that are not finite"
    return "" if lowest >= least else f"expected a cosine of {least:g} to {reference}, got {lowest:.4f}"


def _text(answer: Answer) -> str:
    """The answer as text, without JSON's escapes of characters beyond ASCII."""
    document = answer.document
    return answer.body.decode(errors="replace") if document is None else msgspec.json.encode(document).decode()
