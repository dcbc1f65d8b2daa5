"""Routes by the `model` in the body: OpenAI's, and the others that vLLM has beside them.

vLLM's routes that change or reveal the server (sleep, profiling, LoRA loading, /invocations, /load...) are not here,
and so not on the port. The examples are small requests for the OpenAPI document and for people who try a route. Each
works as it stands, once a model of the right kind is named.
"""

from functools import cache
from typing import Any
from urllib.parse import parse_qs

from servers.errors import ApiError
from servers.gateway.body.content import BodyKind
from servers.gateway.error_shapes import ANTHROPIC, OPENAI, RESPONSES
from servers.gateway.exchange import Exchange
from servers.gateway.routes.route import Handler, Route

_QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_DOCUMENTS = ["Paris is the capital of France.", "Cats sleep most of the day."]
_PAIR = {"text_1": "What is the capital of France?", "text_2": _DOCUMENTS}
_RANKING = {"query": "What is the capital of France?", "documents": _DOCUMENTS}
_RESPONSES = "/v1/responses"
_OBJECT, _GENERATION = BodyKind.OBJECT, BodyKind.GENERATION


async def _infer(exchange: Exchange) -> None:
    path = exchange.request.path
    model = exchange.gateway.directory.serving(path, exchange.content.model)
    await exchange.gateway.dispatch(exchange, model, path)


async def _embed(exchange: Exchange) -> None:
    """Embed texts; token ids only where the model's settings say that callers have its own tokenizer."""
    path, content = exchange.request.path, exchange.content
    model = exchange.gateway.directory.serving(path, content.model)
    inputs = content.document.get("input") if content.document is not None else None
    if not model.settings.embeds_token_ids and isinstance(inputs, list):
        first = inputs[0] if inputs else None
        if isinstance(first, int) or (isinstance(first, list) and first and isinstance(first[0], int)):
            message = (
                "input: expected text, got token ids, which are other words in this model's vocabulary unless its own "
                "tokenizer made them; send text (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)), or "
                f"set models.{model.name}.embeds_token_ids"
            )
            raise ApiError(400, message, code="token_ids_not_taken", param="input")
    await exchange.gateway.dispatch(exchange, model, path)


async def _use_response(exchange: Exchange) -> None:
    """Read or cancel a response that vLLM has stored; the query may name the model."""
    names = parse_qs(exchange.request.query.decode("latin-1")).get("model")
    model = exchange.gateway.directory.serving(_RESPONSES, names[0] if names else None)
    await exchange.gateway.dispatch(exchange, model, exchange.request.path)


def _route(
    path: str,
    body: BodyKind,
    protocol: str = "openai",
    example: Any = None,
    operation_id: str | None = None,
    handler: Handler = _infer,
) -> Route:
    errors = ANTHROPIC if protocol == "anthropic" else RESPONSES if path == _RESPONSES else OPENAI
    return Route(
        path, ("POST",), protocol, handler, body=body, errors=errors, example=example, operation_id=operation_id
    )


def _stored_response(path: str) -> Route:
    label = f"{_RESPONSES}/{{id}}"
    return Route(path, ("POST", "GET"), "openai", _use_response, body=BodyKind.OPAQUE, errors=RESPONSES, label=label)


# The OpenAPI document has those with an example first, in this order. The engines call chat and embeddings differently,
# and a generated client's methods should not depend on which of them is up.
_BY_MODEL = (
    _route(
        "/v1/chat/completions",
        _GENERATION,
        example={"messages": _QUESTION, "max_tokens": 32},
        operation_id="create_chat_completion",
    ),
    _route("/v1/completions", _GENERATION, example={"prompt": "The capital of France is", "max_tokens": 16}),
    _route(
        "/v1/embeddings",
        _OBJECT,
        example={"input": ["a cat", "a kitten"]},
        operation_id="create_embedding",
        handler=_embed,
    ),
    _route(_RESPONSES, _GENERATION, example={"input": "What is the capital of France?", "max_output_tokens": 32}),
    _route("/v1/messages", _GENERATION, "anthropic", {"messages": _QUESTION, "max_tokens": 32}),
    _route("/v1/messages/count_tokens", _OBJECT, "anthropic", {"messages": _QUESTION}),
    _route("/v1/chat/completions/batch", _GENERATION, example={"messages": [_QUESTION, _QUESTION], "max_tokens": 32}),
    _route("/tokenize", _OBJECT, "vllm", {"prompt": "What is the capital of France?"}),
    _route("/detokenize", _OBJECT, "vllm", {"tokens": [1, 2, 3]}),
    _route("/classify", _OBJECT, "vllm", {"input": "a fine day"}),
    _route("/pooling", _OBJECT, "vllm", {"input": "a cat"}),
    _route("/score", _OBJECT, "vllm", _PAIR),
    _route("/v1/score", _OBJECT, "vllm", _PAIR),
    _route("/rerank", _OBJECT, "cohere", _RANKING),
    _route("/v1/rerank", _OBJECT, "cohere", _RANKING),
    _route("/v2/rerank", _OBJECT, "cohere", _RANKING),
    _route("/cohere/v2/chat", _GENERATION, "cohere"),
    _route("/cohere/v2/chat/render", _GENERATION, "cohere"),
    _route("/generative_scoring", _OBJECT, "vllm"),
    _route("/v1/audio/transcriptions", _OBJECT),
    _route("/v1/audio/translations", _OBJECT),
    _route("/v1/chat/completions/render", _GENERATION),
    _route("/v1/completions/render", _GENERATION),
    _route("/v1/messages/render", _GENERATION, "anthropic"),
    _route("/v1/responses/render", _GENERATION),
    _route("/v1/systemone", _OBJECT, "vllm"),
    _route("/v2/embed", _OBJECT, "cohere"),
)
# What an engine may offer of its own routes.
PATHS = frozenset(route.pattern for route in _BY_MODEL)
ROUTES = (
    *_BY_MODEL,
    _stored_response(f"{_RESPONSES}/{{id}}"),
    _stored_response(f"{_RESPONSES}/{{id}}/cancel"),
)


@cache
def card_route(path: str) -> Route:
    """The route of a path of its own that a LitAPI offers on its model's card."""
    return _route(path, _OBJECT)
