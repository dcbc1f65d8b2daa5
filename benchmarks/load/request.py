"""Requests in the form that a server takes: where they go, how their body is built, how the answer is read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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


def endpoint_of(url: str, workload: str | None) -> tuple[str, Endpoint]:
    """The address of the server and the endpoint that a URL stands for; the kind of `workload` tells the form.

    A URL that names a route is that route; one without a path, or whose path ends with /v1, is OpenAI's base, under
    which messages and tokens have a route each. Raises UserError when it is no URL, or its route does not take the
    workload.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"expected a URL such as http://127.0.0.1:8000, got {url!r}")
    address, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    if path == "" or path.endswith("/v1"):
        _refuse(f"{path or '/v1'}/completions", workload, ("texts",), "sends texts to embed", "tokens, chat, or file")
        return address, Endpoint("completions", f"{path or '/v1'}/completions", "events")
    if path.endswith("/chat/completions"):
        _refuse(path, workload, ("tokens", "shared-prefix"), "sends token ids", "chat, or file")
        _refuse(path, workload, ("texts",), "sends texts to embed", "chat, or file")
        return address, Endpoint("chat", path, "events")
    if path.endswith("/completions"):
        _refuse(path, workload, ("chat", "file"), "sends messages", "tokens, or shared-prefix")
        _refuse(path, workload, ("texts",), "sends texts to embed", "tokens, or shared-prefix")
        return address, Endpoint("completions", path, "events")
    if path.endswith("/embeddings"):
        _refuse(path, workload, ("chat",), "sends messages", "texts, or tokens")
        return address, Endpoint("embeddings", path)
    if workload == "images":
        return address, Endpoint("image", path)
    if workload in ("tokens", "shared-prefix", "chat"):
        return address, Endpoint("causal_lm", path, "lines")
    return address, Endpoint("json", path)


def _refuse(path: str, workload: str | None, kinds: Sequence[str], sends: str, expected: str) -> None:
    if workload in kinds:
        raise UserError(
            f"bench.workload.kind: expected {expected} for {path}; {workload} {sends}, which it does not take"
        )


def calls(items: Sequence[Item], endpoint: Endpoint, model: str) -> list[Call]:
    """The items as requests to the endpoint; `model` is the name that the server knows."""
    return [_call(item, endpoint, model) for item in items]


def _call(item: Item, endpoint: Endpoint, model: str) -> Call:
    path, content_type = endpoint.path, "application/json"
    if endpoint.form == "image":
        assert item.picture is not None
        body, content_type = _multipart(item.picture)
    else:
        body = json.dumps(_body(item, endpoint.form, model)).encode()
        if endpoint.form == "completions" and (item.messages is not None or "messages" in (item.body or {})):
            path = path.replace("/completions", "/chat/completions")
    # A request from a file may end before its limit.
    asked_tokens = item.output_tokens if item.body is None else None
    return Call(item.index, path, body, content_type, item.at_s, item.after, item.session, asked_tokens)


def _body(item: Item, form: Form, model: str) -> dict[str, Any]:
    if form == "embeddings":
        return {**(item.body or {"input": item.token_ids}), "model": model}
    if form == "json" or (item.body is not None and form == "causal_lm"):
        assert item.body is not None
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
