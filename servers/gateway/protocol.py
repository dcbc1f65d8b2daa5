"""The front door's side of one connection: uvicorn's HTTP/1.1 protocol with its public-port gaps closed.

uvicorn expects a proxy in front of it. Litport is what stands in front, so slow, oversized, ambiguous and deaf clients
are dealt with here, before a request exists. It rests on uvicorn's internals (`HttpToolsProtocol`, hence the pin to
0.54.*; tests/servers/gateway/protocol holds every gap). It refuses to guess where a message ends.
"""

import asyncio
from typing import ClassVar, Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from configs.settings import Limits
from servers.errors import ApiError

# How long a refused client's data is still read and dropped. Closing at once would make the kernel send a reset, and
# that can overtake the refusal.
_LINGER_S = 1
# As Apache's mod_reqtimeout asks for: who sends a byte now and then holds a connection, and sends nothing.
_SLOWEST_BODY_BYTES_PER_S = 500


class Protocol(HttpToolsProtocol):
    """One connection. `limits` is set by the subclass that `Server` makes: uvicorn builds the instances itself."""

    limits: ClassVar[Limits]

    # What is being read: "start" before the first byte, None between a request's end and the next one's begin.
    _part: Literal["start", "head", "body"] | None = "start"
    _timed_part: Literal["start", "head", "body"] | None = "start"
    _read_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _rests_since_s = 0.0
    _refused = False
    _advanced = False
    _body_due_s = 0.0
    _held_bytes = 0  # read by the parser, and nothing come of it yet
    _dropped_bytes = 0  # of a body whose answer is complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Admit the client; when there are too many, in place of one that asks for nothing, or not."""
        super().connection_made(transport)
        self.timeout_keep_alive = self.limits.keep_alive_timeout_s  # type: ignore[assignment] # any number will do
        self._rests_since_s = self.loop.time()
        self._read_timer = self.loop.call_later(self.limits.header_timeout_s, self._read_expired)
        if len(self.connections) > self.limits.max_connections and not self._close_one_at_rest():
            message = f"too many connections; this server takes {self.limits.max_connections} (limits.max_connections)"
            self._refuse(ApiError(503, message, code="too_many_connections", headers={"retry-after": "1"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        for timer in (self._read_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and set the clock for what has to come next."""
        if self._refused:
            return
        self._advanced = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed_again(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as problem:
            # What a callback raises arrives as the context of the parser's own error.
            cause = problem.__context__
            self._refuse(cause if isinstance(cause, ApiError) else _malformed(f"this is not HTTP/1.1: {problem}"))
            return
        # Also counts trailers and chunk extensions, which the parser keeps or skips without end.
        self._held_bytes = 0 if self._advanced else self._held_bytes + len(data)
        if self._held_bytes > self.limits.max_header_bytes:
            self._refuse(self._head_too_large())
        elif self._part == "body" and self.loop.time() > self._body_due_s:
            self._read_expired()
        elif self._part == "body" or self._part != self._timed_part:
            self._set_read_timer()

    def on_message_begin(self) -> None:
        """Begin a request, unless one is being answered: two at a time would leave the second without its limits."""
        if self.cycle is not None and not _is_answered(self.cycle):
            raise _malformed("expected no request before the last one is answered: pipelining is not served")
        self._unset_keepalive_if_required()
        self._part = "head"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request if its head leaves nothing to guess."""
        self._check_head()
        if self.parser.should_upgrade():
            return  # data_received feeds it again, without the upgrade
        self._part, self._advanced, self._dropped_bytes = "body", True, 0
        self._body_due_s = self.loop.time() + self.limits.body_timeout_s
        super().on_headers_complete()
        self.headers = []  # trailers go here, and nowhere: uvicorn would take them for headers
        if self.expect_100_continue:
            # A client that is answered without `100 Continue` may send its body or not: then nobody knows what is next.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body. The rest of one that is answered already is dropped, but not without end."""
        self._advanced = True
        self._body_due_s += len(body) / _SLOWEST_BODY_BYTES_PER_S
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
            if self._dropped_bytes > self.limits.max_body_bytes:
                raise _malformed("the body has no end")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; one that was answered before its end leaves the connection at rest."""
        if self.parser.should_upgrade():
            return
        self._part, self._advanced = None, True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Leave the connection at rest, unless this request is still coming in or the next one is already."""
        super().on_response_complete()
        self._rests_since_s = self.loop.time()
        if self._part:
            self._unset_keepalive_if_required()
        if self.transport.is_closing() and self in self.connections:
            self.pause_writing()  # closing waits until the client has read everything

    def timeout_keep_alive_handler(self) -> None:
        """End a connection at rest, together with what its client has not read."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """The client does not read: give it limits.write_timeout_s, then free what works for it."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None

    def _close_one_at_rest(self) -> bool:
        """Close the connection that has gone longest without a whole request; False when all others have one."""
        others = [other for other in self.connections if isinstance(other, Protocol) and other is not self]
        resting = [other for other in others if other._rests]
        if not resting:
            return False
        longest = min(resting, key=lambda other: other._rests_since_s)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    @property
    def _rests(self) -> bool:
        return self._part != "body" and (self.cycle is None or self.cycle.response_complete)

    def _check_head(self) -> None:
        names = [name for name, _ in self.headers]
        head_bytes = len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])
        if head_bytes > self.limits.max_header_bytes or len(names) > self.limits.max_header_fields:
            raise self._head_too_large()
        if self.parser.get_method() == b"CONNECT":
            raise ApiError(405, "CONNECT is not served here", code="method_not_allowed")
        is_old = self.parser.get_http_version() == "1.0"
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and not is_old):
            raise _malformed(f"expected one Host header, but there are {hosts}")
        # Servers that differ on where a body ends are how requests are smuggled past one of them. The parser itself
        # refuses two lengths, and a length beside an encoding.
        encodings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if encodings and (is_old or encodings != [b"chunked"]):
            raise _malformed("expected a Content-Length or, in HTTP/1.1, 'Transfer-Encoding: chunked'")

    def _feed_again(self, rest: bytes) -> None:
        """Parse the head once more without its Upgrade field: nothing else makes the parser read the body as one."""
        version = self.parser.get_http_version().encode()
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version), *fields, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(head) + rest)

    def _set_read_timer(self) -> None:
        if self._read_timer:
            self._read_timer.cancel()
        self._timed_part = self._part
        if self._part:
            timeout_s = self.limits.body_timeout_s if self._part == "body" else self.limits.header_timeout_s
            self._read_timer = self.loop.call_later(timeout_s, self._read_expired)

    def _read_expired(self) -> None:
        if self._part == "start":
            self.transport.abort()
        elif self.flow.read_paused:  # it is we who do not read
            self._set_read_timer()
        else:
            limit = "body_timeout_s" if self._part == "body" else "header_timeout_s"
            message = f"the rest of the request did not come in time (limits.{limit})"
            self._refuse(ApiError(408, message, code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Tell the error if no answer has begun, end the running request, and then the connection."""
        self._refused = True
        cycle = self.cycle
        running = cycle is not None and (self._part == "body" or not cycle.response_complete)
        if self.transport.is_closing() or (running and cycle.response_started):
            self.transport.abort()
            return
        if running:
            cycle.disconnected = True
            cycle.message_event.set()
        body = error.body()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        fields = "".join(f"{name}: {value}\r\n" for name, value in (headers | error.headers).items())
        self.transport.write(STATUS_LINE[error.status] + fields.encode() + b"\r\n" + body)
        if self._read_timer:
            self._read_timer.cancel()
        if not self.transport.can_write_eof():  # TLS
            self.transport.close()
            return
        self.transport.write_eof()
        self._read_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _head_too_large(self) -> ApiError:
        message = (
            f"this server takes headers of at most {self.limits.max_header_bytes} bytes in at most "
            f"{self.limits.max_header_fields} fields (limits.max_header_bytes, limits.max_header_fields)"
        )
        return ApiError(431, message, code="headers_too_large")


def _is_answered(cycle: RequestResponseCycle) -> bool:
    # A quick client sends its next request as soon as it has all bytes of an answer, which can be before the
    # application has said that those were all. uvicorn queues that request.
    whole = cycle.response_started and not cycle.chunked_encoding and cycle.expected_content_length == 0
    return cycle.response_complete or whole


def _malformed(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_http")
