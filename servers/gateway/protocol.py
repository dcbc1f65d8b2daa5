"""The front door's side of one connection: uvicorn's HTTP/1.1 protocol with the gaps of a public port closed.

uvicorn expects a proxy in front of it, and Litport has none. So clients that are slow, oversized, ambiguous or do not
read are handled here, before a request exists; where a message ends is never guessed. The module uses uvicorn's
internals (`HttpToolsProtocol`, hence the pin to 0.54.*); tests/servers/gateway/protocol tests every gap.
"""

import asyncio
from typing import ClassVar, Literal
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.cycle import Cycle

# How long data of a rejected client is still read and dropped. Closing at once would make the kernel send a reset,
# which can overtake the rejection.
_LINGER_S = 1
# The rate of Apache's mod_reqtimeout: a client that sends a byte now and then would hold a connection for ever.
_SLOWEST_BODY_BYTES_PER_S = 500


class Protocol(HttpToolsProtocol):
    """One connection. `limits` is set by the subclass that `Server` makes: uvicorn builds the instances itself."""

    limits: ClassVar[Limits]
    cycle: Cycle

    # What is being read: "start" before the first byte, None between the end of a request and the next one.
    _part: Literal["start", "head", "body"] | None = "start"
    _timed_part: Literal["start", "head", "body"] | None = "start"
    _read_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _idle_since_s = 0.0
    _is_rejected = False
    _has_progress = False
    _body_due_s = 0.0
    _pending_bytes = 0  # read by the parser without any progress yet
    _dropped_bytes = 0  # of a body whose answer is complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        """Admit the client; when there are too many, one that is idle makes room, or this one is rejected."""
        super().connection_made(transport)
        self.timeout_keep_alive = self.limits.keep_alive_timeout_s  # type: ignore[assignment] # any number will do
        self._idle_since_s = self.loop.time()
        self._read_timer = self.loop.call_later(self.limits.header_timeout_s, self._read_expired)
        if len(self.connections) > self.limits.max_connections and not self._close_idle():
            message = f"too many connections; this server takes {self.limits.max_connections} (limits.max_connections)"
            self._reject(ApiError(503, message, code="too_many_connections", headers={"retry-after": "1"}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        for timer in (self._read_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)
        if self.cycle is not None and self.cycle.disconnected:
            self.cycle.leave()

    def data_received(self, data: bytes) -> None:
        """Parse the data, and set the timer for what must come next."""
        if self._is_rejected:
            return
        self._has_progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed_again(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as problem:
            # An error that a callback raises is the context of the parser's own error.
            cause = problem.__context__
            self._reject(cause if isinstance(cause, ApiError) else _invalid_http(f"this is not HTTP/1.1: {problem}"))
            return
        # Trailers and chunk extensions count too; the parser reads them without a limit.
        self._pending_bytes = 0 if self._has_progress else self._pending_bytes + len(data)
        if self._pending_bytes > self.limits.max_header_bytes:
            self._reject(self._head_too_large())
        elif self._part == "body" and self.loop.time() > self._body_due_s:
            self._read_expired()
        elif self._part == "body" or self._part != self._timed_part:
            self._set_read_timer()

    def on_message_begin(self) -> None:
        """Begin a request, unless one is being answered: of two at a time, the second would have no limits."""
        if self.cycle is not None and not _is_answered(self.cycle):
            raise _invalid_http("expected no request before the last one is answered: pipelining is not served")
        self._unset_keepalive_if_required()
        self._part = "head"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request if its head can be read in one way only."""
        self._check_head()
        if self.parser.should_upgrade():
            return  # data_received feeds it again, without the upgrade
        self._part, self._has_progress, self._dropped_bytes = "body", True, 0
        self._body_due_s = self.loop.time() + self.limits.body_timeout_s
        self._begin_cycle()
        self.headers = []  # trailers are dropped with this list; uvicorn would use them as headers
        if self.expect_100_continue:
            # A client that is answered without `100 Continue` may send its body or not, so what comes next is unknown.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body. After the answer, the remainder is dropped up to a limit."""
        self._has_progress = True
        self._body_due_s += len(body) / _SLOWEST_BODY_BYTES_PER_S
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
            if self._dropped_bytes > self.limits.max_body_bytes:
                raise _invalid_http("the body has no end")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; if it is answered already, the connection is idle."""
        if self.parser.should_upgrade():
            return
        self._part, self._has_progress = None, True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """The connection is idle, unless this request still comes in or the next one does already."""
        super().on_response_complete()
        self._idle_since_s = self.loop.time()
        if self._part:
            self._unset_keepalive_if_required()
        if self.transport.is_closing() and self in self.connections:
            self.pause_writing()  # closing waits until the client has read everything

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, together with what its client has not read."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """The client does not read: it has limits.write_timeout_s, then the connection ends and frees its model."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None

    def _close_idle(self) -> bool:
        """Close the connection that is idle for longest; False when every other one has a request."""
        peers = [peer for peer in self.connections if isinstance(peer, Protocol) and peer is not self]
        idle = [peer for peer in peers if peer._is_idle]
        if not idle:
            return False
        longest = min(idle, key=lambda peer: peer._idle_since_s)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    @property
    def _is_idle(self) -> bool:
        return self._part != "body" and (self.cycle is None or self.cycle.response_complete)

    def _begin_cycle(self) -> None:
        """Start the request as uvicorn does, with a cycle of ours."""
        scope, url, version = self.scope, httptools.parse_url(self.url), self.parser.get_http_version()
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = url.path, url.query or b""
        previous = self.cycle
        cycle = self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.publish()
        if previous is None or previous.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # see _is_answered
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _check_head(self) -> None:
        head_bytes, hosts, encodings = len(self.url), 0, []
        for name, value in self.headers:
            head_bytes += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                encodings.append(value.lower())
        if head_bytes > self.limits.max_header_bytes or len(self.headers) > self.limits.max_header_fields:
            raise self._head_too_large()
        if self.parser.get_method() == b"CONNECT":
            raise ApiError(405, "CONNECT is not served here", code="method_not_allowed")
        is_old = self.parser.get_http_version() == "1.0"
        if hosts > 1 or (hosts == 0 and not is_old):
            raise _invalid_http(f"expected one Host header, but there are {hosts}")
        # Where two servers disagree on the end of a body, a request can be smuggled past one of them. The parser itself
        # rejects two lengths, and a length beside an encoding.
        if encodings and (is_old or encodings != [b"chunked"]):
            raise _invalid_http("expected a Content-Length or, in HTTP/1.1, 'Transfer-Encoding: chunked'")

    def _feed_again(self, remainder: bytes) -> None:
        """Parse the head again without its Upgrade field: only then does the parser read the body as a body."""
        version = self.parser.get_http_version().encode()
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        head = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version), *fields, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(head) + remainder)

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
        elif self.flow.read_paused:  # the delay is on our side
            self._set_read_timer()
        else:
            limit = "body_timeout_s" if self._part == "body" else "header_timeout_s"
            message = f"the rest of the request did not come in time (limits.{limit})"
            self._reject(ApiError(408, message, code="request_timeout"))

    def _reject(self, error: ApiError) -> None:
        """Send the error if no answer has begun, end the running request, and then the connection."""
        self._is_rejected = True
        cycle = self.cycle
        running = cycle is not None and (self._part == "body" or not cycle.response_complete)
        if self.transport.is_closing() or (running and cycle.response_started):
            self.transport.abort()
            return
        if running:
            cycle.disconnected, cycle.rejection = True, error
            cycle.message_event.set()
            cycle.leave()
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


def _is_answered(cycle: Cycle) -> bool:
    # A quick client sends its next request as soon as it has all bytes of an answer. That can be before the application
    # has reported the end of the answer; uvicorn queues that request.
    is_whole = cycle.response_started and not cycle.chunked_encoding and cycle.expected_content_length == 0
    return cycle.response_complete or is_whole


def _invalid_http(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_http")
