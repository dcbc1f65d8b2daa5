"""Answers of servers and APIs, in a form to compare."""

import json
from typing import Any

from benchmarks.analysis.measurement import Answer


def answer_of(output: Any) -> Answer:
    """What a LitAPI returned: its vectors or labels and scores, whichever it has; otherwise its text as one label."""
    if isinstance(output, dict) and "embeddings" in output:
        return Answer(vectors=output["embeddings"])
    if isinstance(output, dict) and "predictions" in output:
        scores = [prediction.get("score") for prediction in output["predictions"]]
        return Answer(
            labels=[str(prediction["label"]) for prediction in output["predictions"]],
            scores=scores if all(isinstance(score, int | float) for score in scores) else None,
        )
    return Answer(labels=[repr(output)])


def answer_of_text(text: str) -> Answer:
    """What a server answered: JSON in the form of OpenAI, of `causal_lm`, of the naive server, or of a LitAPI.

    Of a stream of lines it is the last one. Raises ValueError where there is nothing to compare.
    """
    document: dict[str, Any] = json.loads(text.strip().rpartition("\n")[2])
    if "choices" in document:
        choice = document["choices"][0]
        details = choice.get("logprobs") or {}
        entries = details.get("content") or ()
        logprobs = details.get("token_logprobs") or [entry["logprob"] for entry in entries]
        token_ids = choice.get("token_ids") or [entry["id"] for entry in entries if "id" in entry]  # llama.cpp's
        if not token_ids:
            raise ValueError("it names no token ids (return_token_ids)")
        return Answer(token_ids=token_ids, logprobs=logprobs or None)
    if "token_ids" in document:
        return Answer(token_ids=document["token_ids"])
    if "data" in document:
        return Answer(vectors=[entry["embedding"] for entry in document["data"]])
    if document.keys() == {"vectors", "labels", "scores"}:  # the naive server's
        return Answer(**document)
    return answer_of(document)
