"""A request as the front door reads it: its head, and its body up to a limit.

The body is read whole, because the name of the model may stand anywhere in it.
"""

import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from servers.errors import ApiError
from servers.gateway.body.rejection import quote
from servers.gateway.cycle import Cycle

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# What a model's process may need. Keys, cookies and addresses do not leave the front door.
_UPSTREAM_HEADERS = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "baggage",
        "content-type",
        "inference-header-content-length",
        "traceparent",
        "tracestate",
        "user-agent",
    }
)
_TRACE_HEADERS = frozenset({"traceparent", "tracestate"})


class ClientGone(Exception):  # noqa: N818 # not an error
    """The client left before its request was read or answered."""


@dataclass(slots=True)
class Request:
    """Method, path and query as they were sent, headers with names in lower case, request id, and the client's IP."""

    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    id: str
    client: str | None = None

    @classmethod
    def from_scope(cls, scope: Scope) -> "Request":
        """Read an ASGI scope; the client's `x-request-id` is used when it is harmless."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client_id = headers.get("x-request-id", "")
        request_id = client_id if _REQUEST_ID.fullmatch(client_id) else os.urandom(16).hex()
        # The path is not decoded: one that is written in another way than its route is another path.
        path = scope["raw_path"].decode("latin-1")
        client = scope.get("client")
        return cls(scope["method"], path, scope["query_string"], headers, request_id, client[0] if client else None)

    @property
    def content_type(self) -> str:
        """The content type in lower case ("" when there is none)."""
        return self.headers.get("content-type", "").lower()

    def upstream_headers(self, trace: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers for the model's process; without a content type the body is JSON for every engine.

        `trace` replaces the client's own trace context.
        """
        headers = {name: value for name, value in self.headers.items() if name in _UPSTREAM_HEADERS}
        if trace is not None:
            headers = {name: value for name, value in headers.items() if name not in _TRACE_HEADERS} | dict(trace)
        return {"content-type": "application/json", **headers, "x-request-id": self.id}

    def take_body(self, cycle: Cycle, max_bytes: int) -> bytes | None:
        """The body if it is there already, as that of most requests is. Raises as `read_body` does."""
        self._check_head(max_bytes)
        body = cycle.whole_body()
        if body is not None and len(body) > max_bytes:
            raise _too_large(len(body), max_bytes)
        return body

    async def read_body(self, cycle: Cycle, max_bytes: int) -> bytes:
        """The whole body.

        Raises ApiError 413 beyond `max_bytes`, by Content-Length before a byte is read, 415 where it is compressed, and
        the connection's own for one that is too slow.
        """
        self._check_head(max_bytes)
        parts: list[bytes] = []
        size = 0
        while True:
            message: Any = await cycle.receive()
            if message["type"] == "http.disconnect":
                raise cycle.rejection or ClientGone
            parts.append(message["body"])
            size += len(parts[-1])
            if size > max_bytes:
                raise _too_large(size, max_bytes)
            if not message["more_body"]:
                return b"".join(parts)

    def _check_head(self, max_bytes: int) -> None:
        encoding = self.headers.get("content-encoding")
        if encoding is not None and (encoding := encoding.strip().lower()) != "identity":
            message = f"Content-Encoding: expected a body that is not compressed (identity), got {quote(encoding)}"
            # Accept-Encoding names what is taken (RFC 9110, section 12.5.3); the body stays unread.
            headers = {"accept-encoding": "identity", "connection": "close"}
            raise ApiError(415, message, code="unsupported_content_encoding", headers=headers)
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > max_bytes:
            raise _too_large(int(length), max_bytes)


def _too_large(size: int, max_bytes: int) -> ApiError:
    message = f"the body has {size} bytes; this server takes at most {max_bytes} (limits.max_body_bytes)"
    # The rest of the body is not read, so the connection cannot be used again.
    return ApiError(413, message, code="request_too_large", headers={"connection": "close"})
