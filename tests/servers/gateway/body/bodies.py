"""Bodies of requests, and what holds for the error of every body that is rejected."""

import json
from typing import Any

import pytest

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.body.content import BodyKind, Content, read_content

JSON = "application/json"


LIMITS = Limits()


SECRET = "my very own prompt"


MIB = 2**20


def read(body: bytes, content_type: str, limits: Limits, kind: BodyKind = BodyKind.OBJECT) -> Content:
    return read_content(body, content_type, limits, kind)


def refusal(
    body: bytes, content_type: str = JSON, limits: Limits = LIMITS, kind: BodyKind = BodyKind.OBJECT
) -> ApiError:
    """The error that a body gets, after what holds for every one."""
    with pytest.raises(ApiError) as caught:
        read(body, content_type, limits, kind)
    error = caught.value
    assert SECRET not in error.message
    assert len(error.message) < 300
    for piece in (body.decode(errors="replace")[start : start + 100] for start in range(0, min(len(body), 10**5), 50)):
        assert len(piece) < 100 or piece not in error.message
    told = json.loads(error.body())["error"]
    assert (told["type"], told["param"]) == ("invalid_request_error", error.param)
    return error


def asking(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": SECRET, **fields}).encode()


def with_raw(value: str, name: str = "max_tokens") -> bytes:
    return f'{{"model": "m", "prompt": "{SECRET}", "{name}": {value}}}'.encode()


def nested(depth: int) -> bytes:
    """An object that is `depth` deep, with a list and an object in turn."""
    inside = "1"
    for level in range(depth - 1):
        inside = f"[{inside}]" if level % 2 else f'{{"b": {inside}}}'
    return f'{{"a": {inside}}}'.encode()
