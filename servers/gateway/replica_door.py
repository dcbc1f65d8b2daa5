"""The port of a replica: one model for gateways that know the shared secret.

It passes requests to the model's process and answers back, and decides nothing: keys, bodies, limits, turns and
deadlines are the gateway's. Nobody is refused here whom a gateway has let in. Without the secret there are /health and
the identity only.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qs

import msgspec

from servers.engines.connection import CONNECTION_LOST, AnswerBrokenError, NotTakenError, Reply, TokenCount
from servers.engines.replica import wire
from servers.engines.replica.engine import DRAINING
from servers.engines.replica.wire import Outcome
from servers.engines.stream import Stream
from servers.errors import ApiError
from servers.gateway import cycle
from servers.gateway.cycle import Cycle
from servers.gateway.deadline import Deadline
from servers.gateway.forward import DROPPED_HEADERS, is_dying
from servers.gateway.request import ClientGone, Receive, Request, Scope, Send
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.processes.pause import PauseClock

# A gateway bounds its callers' bodies.
_ANY_SIZE = 2**62
_LONGEST_WAIT_S = 60.0
_CARD_WAIT_S = 3.0
_NONCE_CHARS = 128
# A round trip, and what a busy gateway takes to ask again.
_BETWEEN_QUESTIONS_S = 2.0
# Those of the way to the replica; the connection to the process has its own.
_OWN_HEADERS = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding", wire.SECRET})

_Fields = Sequence[tuple[bytes, bytes]]


class ReplicaDoor:
    """An ASGI application over the one model; `changed` is to be called after each step of it."""

    def __init__(self, model: Model, secret: str, identity: str = "") -> None:
        self._model = model
        self._identity = identity
        self._secret = secret
        self._in_flight = 0
        self._waiting = 0.0
        self._followers = 0
        self._followed_at_s = -math.inf
        self._is_draining = False
        self._changed = asyncio.Event()
        self.clock = PauseClock()

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Answer one request."""
        request = Request.from_scope(scope)
        own_cycle = cycle.take(scope)
        if self._is_draining:
            own_cycle.keep_alive = False
        if request.path == "/health":
            await _send_json(own_cycle, 200, b'{"status":"ok"}')
        elif request.path == wire.IDENTITY_PATH:
            nonce = request.query.decode("latin-1")[:_NONCE_CHARS]
            proof = wire.prove(self._secret, nonce, self._identity)
            await _send_json(own_cycle, 200, msgspec.json.encode(wire.Identity(self._identity, proof)))
        elif not wire.knows(self._secret, request.headers.get(wire.SECRET, "")):
            status = 403 if wire.SECRET in request.headers else 401
            own_cycle.keep_alive = False  # its body is not read
            error = ApiError(status, "a replica answers its gateway only (cluster.secret_file)", code="invalid_secret")
            await _send_json(own_cycle, status, error.body())
        elif request.path == wire.STATE_PATH:
            await self._tell_state(request, own_cycle)
        elif request.path == wire.CARD_PATH:
            await self._tell_card(own_cycle)
        else:
            await self._answer(request, own_cycle)

    @property
    def in_flight(self) -> int:
        """The requests that the model works on."""
        return self._in_flight

    @property
    def demand(self) -> float:
        """The requests that the model works on, and its share of those that wait at gateways."""
        return self._in_flight + self._waiting

    @property
    def has_gateways(self) -> bool:
        """Whether a gateway follows its state; between two questions it takes a moment to ask again."""
        return self._followers > 0 or time.monotonic() - self._followed_at_s < _BETWEEN_QUESTIONS_S

    def changed(self) -> None:
        """Tell the gateways that wait for it that the model may be in another state."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def drain(self) -> None:
        """Take no request from now on, tell the gateways, and return once none is in flight."""
        self._is_draining = True
        self.changed()
        while self._in_flight:  # they end one by one, and each wakes this
            await self._changed.wait()

    async def _tell_state(self, request: Request, own_cycle: Cycle) -> None:
        """The state of the model as soon as it is not ready, at the latest after the time that the query asks for."""
        query = parse_qs(request.query.decode("latin-1"))
        waiting = _number(query, "waiting")
        # A gateway asks again at once, so that what it tells counts until it tells something else, or is gone.
        self._waiting += waiting
        self._followers += 1
        try:
            await self._wait_while(lambda: self._is_ready, min(_number(query, "wait"), _LONGEST_WAIT_S))
        finally:
            self._waiting -= waiting
            self._followers -= 1
            self._followed_at_s = time.monotonic()
        instance = self._model.choose()
        name = DRAINING if self._is_draining else instance.state.value
        if self._is_draining:
            own_cycle.keep_alive = False
        body = msgspec.json.encode(wire.State(name, instance.detail))
        await _send_json(own_cycle, 200, body, [wire.write_outcome(Outcome.ANSWERED)])

    async def _tell_card(self, own_cycle: Cycle) -> None:
        """The card once the model is ready; a gateway that asks early waits a moment for it."""
        await self._wait_while(lambda: not self._is_ready and not self._is_draining, _CARD_WAIT_S)
        instance = self._model.choose()
        if not self._is_ready or instance.card is None:
            await self._tell_absence(own_cycle, instance)
            return
        card = msgspec.json.encode(wire.describe(self._model.name, self._model.engine.kind, instance.card))
        await _send_json(own_cycle, 200, card, [wire.write_outcome(Outcome.ANSWERED)])

    async def _wait_while(self, condition: Callable[[], bool], limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while condition():
                    await self._changed.wait()

    @property
    def _is_ready(self) -> bool:
        return not self._is_draining and self._model.state is State.READY

    async def _answer(self, request: Request, own_cycle: Cycle) -> None:
        """What the model's process answers."""
        try:
            body = request.take_body(own_cycle, _ANY_SIZE)
            if body is None:
                body = await request.read_body(own_cycle, _ANY_SIZE)
            instance = self._model.choose()
            if not self._is_ready or instance.card is None:
                await self._tell_absence(own_cycle, instance)
            else:
                deadline = Deadline(time.monotonic(), None, "", self.clock)  # it ends only what a gateway leaves
                await deadline.limit_answer(own_cycle, self._relay(request, body, own_cycle, instance))
        except ClientGone:
            pass
        except ApiError as refusal:
            await _send_json(own_cycle, refusal.status, refusal.body(), [wire.write_outcome(Outcome.REFUSED)])

    async def _tell_absence(self, own_cycle: Cycle, instance: Instance) -> None:
        step = "it is being stopped" if self._is_draining else f"its model is {instance.state.value}: {instance.detail}"
        await _end(own_cycle, Outcome.ABSENT, step.rstrip(": "))

    async def _relay(self, request: Request, body: bytes, own_cycle: Cycle, instance: Instance) -> None:
        """Send the request to the process and its answer back, and then how it ended. Raises ApiError."""
        assert instance.connection is not None
        headers = {name: value for name, value in request.headers.items() if name not in _OWN_HEADERS}
        query = request.query.decode("latin-1")
        deaths = instance.deaths
        self._in_flight += 1
        instance.in_flight += 1
        try:
            reply = await instance.connection.send(request.method, request.path, body, headers, query)
            try:
                if reply.status == 500 and await is_dying(instance, deaths):
                    await _end(own_cycle, Outcome.DIED)
                else:
                    await self._send_back(reply, own_cycle, instance)
            finally:
                reply.close()
        except NotTakenError as problem:
            await _end(own_cycle, Outcome.ABSENT, str(problem))
        except CONNECTION_LOST:
            await _end(own_cycle, Outcome.DIED)
        except AnswerBrokenError as problem:
            await _end(own_cycle, Outcome.BROKEN, str(problem))
        finally:
            instance.in_flight -= 1
            self._in_flight -= 1
            if self._is_draining:
                self.changed()

    async def _send_back(self, reply: Reply, own_cycle: Cycle, instance: Instance) -> None:
        """Pass the answer on as it comes. Raises what its chunks raise."""
        instance.answered_at_s = time.monotonic()
        if self._is_draining:
            own_cycle.keep_alive = False
        fields = [
            pair for pair in reply.headers if pair[0].lower() not in DROPPED_HEADERS or pair[0] == b"x-request-id"
        ]
        fields.append(wire.write_outcome(Outcome.ANSWERED))
        chunks, tokens = reply.chunks, reply.tokens
        whole = chunks.whole() if reply.body is None and isinstance(chunks, Stream) else reply.body
        if tokens is not None and tokens.input_tokens is not None:
            fields.append((wire.COUNT, wire.write_count(tokens)))
        start = {"type": "http.response.start", "status": reply.status, "headers": fields, "whole": whole}
        await own_cycle.send(start | {"trailers": _trailers(tokens)})
        if whole is not None:
            return
        last, sink = b"", _Sink(own_cycle, instance)
        if isinstance(chunks, Stream):
            last = await chunks.relay(sink)
        else:
            async for part in chunks:
                if not sink.write(part):
                    await sink.drain()
        await own_cycle.send({"type": "http.response.body", "body": last, "trailers": _trailers(tokens)})


def _trailers(tokens: TokenCount | None) -> _Fields:
    return [] if tokens is None else [(wire.COUNT, wire.write_count(tokens))]


def _number(query: Mapping[str, Sequence[str]], name: str) -> float:
    text = query.get(name, ["0"])[0]
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0


class _Sink:
    """The gateway's connection, while the instance counts as answering."""

    def __init__(self, own_cycle: Cycle, instance: Instance) -> None:
        self._cycle = own_cycle
        self._instance = instance
        self.drain = own_cycle.drain

    def write(self, chunk: bytes) -> bool:
        self._instance.answered_at_s = time.monotonic()
        return self._cycle.write(chunk)


async def _end(own_cycle: Cycle, outcome: Outcome, message: str = "") -> None:
    """Tell an outcome without an answer, or behind a part of one; one whose length was promised breaks off."""
    field = wire.write_outcome(outcome, message)
    if not own_cycle.response_started:
        await _send_json(own_cycle, 503, b"{}", [field])
    elif own_cycle.chunked_encoding:
        await own_cycle.send({"type": "http.response.body", "trailers": [field]})
    else:
        own_cycle.transport.abort()


async def _send_json(own_cycle: Cycle, status: int, body: bytes, fields: _Fields = ()) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *fields]
    await own_cycle.send({"type": "http.response.start", "status": status, "headers": headers, "whole": body})
