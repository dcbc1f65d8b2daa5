"""Answers of servers become what is compared, or it is said that there is nothing to compare."""

import json
from typing import Any

import pytest

from benchmarks.analysis.measurement import Answer
from benchmarks.rungs.answer import answer_of_text


@pytest.mark.parametrize(
    ("document", "answer"),
    [
        ({"choices": [{"token_ids": [4, 5], "logprobs": {"token_logprobs": [-1.0, -2.0]}}]}, Answer([4, 5], [-1, -2])),
        ({"choices": [{"logprobs": {"content": [{"id": 4, "logprob": -1.0}]}}]}, Answer([4], [-1])),
        ({"token_ids": [4]}, Answer([4])),
        ({"data": [{"embedding": [0.5]}]}, Answer(vectors=[[0.5]])),
        ({"predictions": [{"label": "cat", "score": 0.5}]}, Answer(labels=["cat"], scores=[0.5])),
    ],
)
def test_an_answer_is_its_tokens_vectors_or_labels(document: dict[str, Any], answer: Answer) -> None:
    assert answer_of_text(json.dumps(document)) == answer


@pytest.mark.parametrize("logprobs", [None, {"content": [{"token": "a", "logprob": -1.0}]}])
def test_a_completion_without_token_ids_cannot_be_compared(logprobs: dict[str, Any] | None) -> None:
    document = {"choices": [{"text": "a", "logprobs": logprobs}]}
    with pytest.raises(ValueError, match="it names no token ids"):
        answer_of_text(json.dumps(document))
