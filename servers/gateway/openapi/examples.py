"""A small request for each route that goes by the body's `model`, for the document and for whoever tries it out.

Each works as it stands once a model is named, if the model is of the kind that the route is for. They are not canaries:
nobody decides by them whether a model is well.
"""

from typing import Any

_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_DOCUMENTS = ["Paris is the capital of France.", "Cats sleep most of the day."]
_PAIR = {"text_1": "What is the capital of France?", "text_2": _DOCUMENTS}
_RANKING = {"query": "What is the capital of France?", "documents": _DOCUMENTS}

# Paths to bodies without their `model`; the document has them in this order.
EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": _QUESTION, "max_tokens": 32},
    "/v1/completions": {"prompt": "The capital of France is", "max_tokens": 16},
    "/v1/embeddings": {"input": ["a cat", "a kitten"]},
    "/v1/responses": {"input": "What is the capital of France?", "max_output_tokens": 32},
    "/v1/messages": {"messages": _QUESTION, "max_tokens": 32},
    "/v1/messages/count_tokens": {"messages": _QUESTION},
    "/v1/chat/completions/batch": {"messages": [_QUESTION, _QUESTION], "max_tokens": 32},
    "/tokenize": {"prompt": "What is the capital of France?"},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/classify": {"input": "a fine day"},
    "/pooling": {"input": "a cat"},
    "/score": _PAIR,
    "/v1/score": _PAIR,
    "/rerank": _RANKING,
    "/v1/rerank": _RANKING,
    "/v2/rerank": _RANKING,
}
