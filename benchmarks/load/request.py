"""Requests in the form that a server takes: where they go, how their body is built, how the answer is read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from benchmarks.load.workload import Item
from clients.record import Call
from configs.errors import UserError

Form = Literal["completions", "chat", "embeddings", "causal_lm", "image", "json"]
ReadAs = Literal["events", "lines", "whole"]


@dataclass(frozen=True)
class Endpoint:
    """Where a server takes requests: the form of their bodies, their path, and how the answers are read."""

    form: Form
    path: str
    read_as: ReadAs = "whole"


COMPLETIONS = Endpoint("completions", "/v1/completions", "events")
EMBEDDINGS = Endpoint("embeddings", "/v1/embeddings")


def endpoint_of(url: str, workload: str | None, body: Any = None) -> tuple[str, Endpoint]:
    """The address of the server and the endpoint that a URL stands for; what is sent tells the form.

    That is `body`, an example of a request, or else the kind of `workload`. A URL that names a route is that route; one
    without a path, or whose path ends with /v1, is OpenAI's base, under which messages, tokens and texts have a route
    each. Raises UserError when it is no URL, or its route does not take what is sent.
    """
    address, path, query = _split(url)
    if path == "" or path.endswith("/v1"):
        embeds = workload == "texts" if body is None else isinstance(body, dict) and "input" in body
        path = f"{path or '/v1'}/{'embeddings' if embeds else 'completions'}"
        kinds: Sequence[str] = ("tokens", "shared-prefix", "chat", "file", "texts")
        endpoint = Endpoint("embeddings", path) if embeds else Endpoint("completions", path, "events")
    elif path.endswith("/chat/completions"):
        kinds, endpoint = ("chat", "file"), Endpoint("chat", path, "events")
    elif path.endswith("/completions"):
        kinds, endpoint = ("tokens", "shared-prefix"), Endpoint("completions", path, "events")
    elif path.endswith("/embeddings"):
        kinds, endpoint = ("texts", "tokens", "shared-prefix"), Endpoint("embeddings", path)
    elif "/v1/" in path:
        kinds, endpoint = (), Endpoint("json", path)
    elif body is not None or workload in (None, "example", "texts"):
        return address, Endpoint("json", path + query)
    elif workload == "images":
        return address, Endpoint("image", path + query)
    else:
        return address, Endpoint("causal_lm", path + query, "lines")
    if body is None and workload in _SENT and workload not in kinds:
        expected = f"one of {', '.join(kinds)}" if kinds else "none, but --body with a request,"
        message = f"bench.workload.kind: expected {expected} for {path}, got {workload}, {_SENT[workload]}"
        raise UserError(f"{message}; a model's own route is {address}/predict/MODEL")
    return address, replace(endpoint, path=endpoint.path + query)


_SENT = {
    "tokens": "which sends token ids",
    "shared-prefix": "which sends token ids",
    "chat": "which sends messages",
    "file": "which sends messages",
    "texts": "which sends texts to embed",
    "images": "which sends pictures",
}


def _split(url: str) -> tuple[str, str, str]:
    """The address, the path without a slash at its end, and the query with its mark. Raises UserError."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an address of IPv6 that is none
        is_address = False
    if not is_address:
        raise UserError(f"expected a URL such as http://127.0.0.1:8000, got {url!r}")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"), f"?{parts.query}" if parts.query else ""


def calls(items: Sequence[Item], endpoint: Endpoint, model: str) -> list[Call]:
    """The items as requests to the endpoint; `model` is the name that the server knows.

    Raises UserError for a workload that the endpoint does not take.
    """
    return [_call(item, endpoint, model) for item in items]


def _call(item: Item, endpoint: Endpoint, model: str) -> Call:
    path, content_type = endpoint.path, "application/json"
    if endpoint.form == "image":
        if item.picture is None:
            raise UserError(f"bench.workload.kind: expected images for {path}, which takes pictures")
        body, content_type = _multipart(item.picture)
    else:
        body = json.dumps(_body(item, endpoint, model)).encode()
        if endpoint.form == "completions" and (item.messages is not None or "messages" in (item.body or {})):
            path = path.replace("/completions", "/chat/completions")
    return Call(item.index, path, body, content_type, item.at_s, item.after, item.session, item.output_tokens)


def _body(item: Item, endpoint: Endpoint, model: str) -> dict[str, Any]:
    form = endpoint.form
    if form == "embeddings":
        return {**(item.body or {"input": item.token_ids}), "model": model}
    if form == "json" or (item.body is not None and form == "causal_lm"):
        if item.body is None:
            raise UserError(f"bench.workload.kind: expected example or texts for {endpoint.path}, which takes JSON")
        return item.body
    limits: dict[str, Any] = {"max_tokens": item.output_tokens, "ignore_eos": True, "temperature": 0}
    if form == "causal_lm":
        prompt = {"messages": item.messages} if item.token_ids is None else {"prompt_token_ids": item.token_ids[0]}
        return {**prompt, **limits}
    stream = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if item.body is not None:
        return {**item.body, **stream}
    prompt = {"messages": item.messages} if item.token_ids is None else {"prompt": item.token_ids[0]}
    return {**prompt, **limits, **stream}


def _multipart(picture: bytes) -> tuple[bytes, str]:
    boundary = "litport-bench-7b0c2f"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n'
    part = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()
    return part + picture + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
