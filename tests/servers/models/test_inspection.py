"""The checks of a model: what must hold of an answer, and what is said where it does not."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from configs.model import Check
from servers.models.inspection import CheckError, inspect
from tests.services.instances import Answering, answering


def told(answer: Answering, **check: Any) -> str:
    """What is wrong with the answer by this check; "" for nothing."""
    try:
        asyncio.run(inspect("one", {"knows": Check.model_validate(check)}, answering(answer)))
    except CheckError as problem:
        return str(problem).removeprefix("check 'knows' failed: ")
    return ""


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ({}, ""),
        ({"contains": "Paris"}, ""),
        ({"contains": "Pâris"}, ""),
        ({"contains": "Rome"}, "expected an answer with 'Rome', got "),
        ({"equals": {"predictions.0.label": "tabby", "score": 0.3}}, ""),
        ({"equals": {"predictions.0.label": "dog"}}, 'expected predictions.0.label to be "dog", got "tabby"'),
        ({"equals": {"predictions.1.label": "tabby"}}, "expected predictions.1.label to be "),
        ({"equals": {"score": 0.31}}, "expected score to be 0.31, got 0.30000000001"),
        ({"status": 400}, "expected status 400, got 200: "),
    ],
)
def test_status_text_and_values_must_be_as_expected(check: dict[str, Any], problem: str) -> None:
    document = {"text": "Paris, Pâris", "predictions": [{"label": "tabby"}], "score": 0.30000000001}
    message = told(lambda path, body: document, **check)
    assert (problem in message, bool(message)) == (True, bool(problem))


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([[1.0, 0.1]], ""),
        ([[1.0, 0.5]], "expected a cosine of 0.98 to "),
        ([[1.0, 0.0, 0.0]], "3 numbers in place of 2"),
        ([[0.0, 0.0]], "cannot be compared"),
        ([[1.0, 0.0], [1.0, 0.0]], "expected 1 vectors as in "),
    ],
)
def test_vectors_must_be_near_those_of_the_reference(tmp_path: Path, vectors: list[Any], problem: str) -> None:
    reference = tmp_path / "a-cat.json"
    reference.write_text(json.dumps({"data": [{"embedding": [1.0, 0.0]}]}))
    message = told(lambda path, body: {"data": vectors}, reference=reference, cosine=0.98)
    assert (problem in message, bool(message)) == (True, bool(problem))
    reference.write_text("{")
    assert "cannot be read as JSON" in told(lambda path, body: {"data": vectors}, reference=reference)


def test_what_is_asked_is_a_body_with_the_models_name_or_a_file(tmp_path: Path) -> None:
    asked: list[tuple[str, bytes]] = []
    picture = tmp_path / "cat.jpg"
    picture.write_bytes(b"\xff\xd8 a cat")
    assert told(lambda path, body: asked.append((path, body)), path="/v1/embeddings", body={"input": "a cat"}) == ""
    assert told(lambda path, body: asked.append((path, body)), file=picture) == ""
    assert (asked[0][0], json.loads(asked[0][1])) == ("/v1/embeddings", {"model": "one", "input": "a cat"})
    assert asked[1][0] == "/predict"
    assert b'name="file"; filename="cat.jpg"\r\n\r\n\xff\xd8 a cat\r\n' in asked[1][1]
