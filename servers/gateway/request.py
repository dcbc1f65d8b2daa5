"""A request as the front door reads it: its headers, its body, and the one field it looks at.

The body is read whole, up to a limit, because the model's name stands anywhere in it; nothing else of it is decoded.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from servers.errors import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# What a child may need to see. Keys, cookies and addresses stay at the door.
_FORWARDED = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "baggage",
        "content-encoding",
        "content-type",
        "traceparent",
        "tracestate",
        "user-agent",
    }
)

_TRACE = frozenset({"traceparent", "tracestate"})


class ClientGone(Exception):  # noqa: N818 # it is no error
    """The client left before its request was read or answered."""


@dataclass(frozen=True)
class Request:
    """Method, path and query as they were sent, header names in lower case, and the request id that goes everywhere."""

    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    id: str
    client: str | None = None

    @classmethod
    def from_scope(cls, scope: Scope) -> "Request":
        """Read what ASGI's scope holds; a client's own `x-request-id` is kept when it is harmless."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        own_id = headers.get("x-request-id", "")
        request_id = own_id if _REQUEST_ID.fullmatch(own_id) else uuid.uuid4().hex
        # A path that was written in another way than it is listed is another path.
        path = scope["raw_path"].decode("latin-1")
        client = scope.get("client")
        return cls(scope["method"], path, scope["query_string"], headers, request_id, client[0] if client else None)

    @property
    def content_type(self) -> str:
        """The content type as sent, in lower case ("" when there is none)."""
        return self.headers.get("content-type", "").lower()

    def upstream_headers(self, trace: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers that go on to the child; without a content type a body is JSON to all of them.

        `trace` takes the place of the client's own trace context.
        """
        kept = {name: value for name, value in self.headers.items() if name in _FORWARDED}
        if trace is not None:
            kept = {name: value for name, value in kept.items() if name not in _TRACE} | dict(trace)
        return {"content-type": "application/json", **kept, "x-request-id": self.id}

    async def read_body(self, receive: Receive, max_bytes: int) -> bytes:
        """The whole body. Raises ApiError 413 beyond `max_bytes`, by Content-Length before a byte is read."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > max_bytes:
            raise _too_large(int(declared), max_bytes)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message["body"])
            size += len(parts[-1])
            if size > max_bytes:
                raise _too_large(size, max_bytes)
            if not message["more_body"]:
                return b"".join(parts)


def model_in(body: bytes, content_type: str) -> str | None:
    """The `model` that a JSON body or a multipart form names; None when it names none. Raises ApiError 400."""
    if content_type.startswith("multipart/form-data"):
        match = _FORM_MODEL.search(body)
        return match.group(1).decode(errors="replace").strip() if match else None
    try:
        return _PEEK.decode(body).model
    except msgspec.ValidationError as problem:
        param = "model" if "$.model" in str(problem) else None
        raise ApiError(400, f"the body is not as expected: {problem}", code="invalid_type", param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ApiError(400, f"the body is not valid JSON: {problem}", code="invalid_json") from None


class _Peek(msgspec.Struct):
    model: str | None = None


_PEEK = msgspec.json.Decoder(_Peek)
_FORM_MODEL = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,512})\r\n--')


def _too_large(size: int, max_bytes: int) -> ApiError:
    message = f"the body has {size} bytes; this server takes at most {max_bytes} (limits.max_body_bytes)"
    # The rest of the body is not read, so the connection cannot be used again.
    return ApiError(413, message, code="request_too_large", headers={"connection": "close"})
