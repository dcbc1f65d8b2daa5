"""One request's way out: uvicorn's cycle, which can also write without a change of task, and whole answers at once.

An ASGI application gets the cycle from its scope (`take`), whatever middleware stands between. The bytes are uvicorn's.
"""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from servers.errors import ApiError

Message = MutableMapping[str, Any]

_EXTENSION = "litport"
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_NO_BODY = (204, 304)
_LARGE_BYTES = 64 * 1024


class Cycle(RequestResponseCycle):
    """See uvicorn's. A start message may have the `whole` body, too: one message and one write for both.

    The last message of an answer without a length may have `trailers`, fields behind its end. `rejection` is the error
    that the connection has sent in the place of an answer.
    """

    rejection: ApiError | None = None
    _on_leave: Callable[[], None] | None = None

    def publish(self) -> None:
        """Put it into the scope."""
        self.scope["extensions"] = {_EXTENSION: {"cycle": self}}

    def whole_body(self) -> bytes | None:
        """The request's body if all of it has come and nothing was read of it; it is read then."""
        if self.more_body or self.waiting_for_100_continue or self.disconnected:
            return None
        body = bytes(self.body)
        self.body = bytearray()
        self.message_event.clear()
        return body

    def watch(self, on_leave: Callable[[], None] | None) -> None:
        """Call this once when the client leaves, at once if it has left. For when the whole body has been read."""
        self._on_leave = on_leave
        if on_leave is not None:
            self.flow.resume_reading()  # a connection that is not read does not tell
            if self.disconnected:
                self.leave()

    def leave(self) -> None:
        """The client has left."""
        on_leave, self._on_leave = self._on_leave, None
        if on_leave is not None:
            on_leave()

    async def send(self, message: Any) -> None:
        """ASGI's send."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            _expect("http.response.start", kind)
            head, whole = self._start(message), message.get("whole")
            if whole is None:
                self.transport.write(head)
            else:
                self._write(whole, head=head, is_last=True, trailers=message.get("trailers", ()))
        elif not self.response_complete:
            _expect("http.response.body", kind)
            is_last = not message.get("more_body", False)
            self._write(message.get("body", b""), is_last=is_last, trailers=message.get("trailers", ()))
        else:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")

    def write(self, chunk: bytes) -> bool:
        """Send a piece of the body now; whether the client keeps up. Once False, `drain` comes before the next one."""
        if chunk and not self.disconnected:
            if self.chunked_encoding:
                self.transport.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
            else:
                self._write(chunk, is_last=False)
        return not self.flow.write_paused

    async def drain(self) -> None:
        """Wait until the client keeps up, or has left."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()

    def _start(self, message: Message) -> bytes:
        """The bytes of the head."""
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        content = [STATUS_LINE[status]]
        says_close = False
        fields = [*self.default_headers, *message.get("headers", ())]
        if HEADER_RE.search(b"".join([name for name, _ in fields])):
            raise RuntimeError("Invalid HTTP header name.")
        if HEADER_VALUE_RE.search(b"".join([value for _, value in fields])):
            raise RuntimeError("Invalid HTTP header value.")
        for name, value in fields:
            name = name.lower()
            if name not in _FRAMING:
                pass
            elif name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value.decode())
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection" and b"close" in [token.lower().strip() for token in value.split(b",")]:
                self.keep_alive = False
                says_close = True
            content += (name, b": ", value, b"\r\n")
        if not self.keep_alive and not says_close:
            content.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _NO_BODY:
            self.chunked_encoding = True
            content.append(b"transfer-encoding: chunked\r\n")
        content.append(b"\r\n")
        return b"".join(content)

    def _write(
        self, body: bytes, *, is_last: bool, head: bytes = b"", trailers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            data = head
        elif self.chunked_encoding:
            end = b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % pair for pair in trailers]) if is_last else b""
            data = b"%b%x\r\n%b\r\n%b" % (head, len(body), body, end) if body else head + end
        else:
            if len(body) > self.expected_content_length:
                raise RuntimeError("Response content longer than Content-Length")
            self.expected_content_length -= len(body)
            if head and len(body) > _LARGE_BYTES:  # not copied
                self.transport.write(head)
                head = b""
            data = head + body if head else body
        if data:
            self.transport.write(data)
        if is_last:
            self._complete()

    def _complete(self) -> None:
        if self.expected_content_length != 0:
            raise RuntimeError("Response content shorter than Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def take(scope: MutableMapping[str, Any]) -> Cycle:
    """The cycle of the request with this scope, which has it no more: each refers to the other."""
    cycle: Cycle = scope.pop("extensions")[_EXTENSION]["cycle"]
    return cycle


def _expect(expected: str, kind: str) -> None:
    if kind != expected:
        raise RuntimeError(f"Expected ASGI message '{expected}', but got '{kind}'.")
