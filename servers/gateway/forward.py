"""Forwarding: one request to a model's process, and the answer back to the client, byte for byte, as it comes.

The answer is not decoded, so a stream costs one copy a chunk. Only an error is read whole, to give it the shape that
the route's clients expect.
"""

import asyncio
import time
from collections.abc import Mapping

from servers.engines.connection import CONNECTION_LOST, AnswerBrokenError, NotTakenError, ProcessDiedError, Reply
from servers.engines.stream import Stream
from servers.errors import ApiError, BystanderError, UnservedError
from servers.gateway.body import prompt
from servers.gateway.errors import translate
from servers.gateway.exchange import Exchange
from servers.gateway.ledger import Ledger
from servers.models.instance import Instance, State
from servers.models.model import Model

DROPPED_HEADERS = frozenset(
    {
        b"access-control-allow-credentials",  # those of server.cors_origins count
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"access-control-expose-headers",
        b"access-control-max-age",
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-litport-version",
        b"x-request-id",
    }
)
"""Headers that belong to one connection (RFC 9110, 7.6.1), and those that the front door sets itself."""

_VERSION = b"x-litport-version"
_ERROR_HEADERS = (b"content-length", b"content-type")
# vLLM's server outlives its engine by less than this.
_DYING_S = 0.5


async def forward(exchange: Exchange, model: Model, path: str, ledger: Ledger) -> None:
    """Send the request to the model's process under `path`, and its answer to the client; the ledger hears of both.

    Where nobody listens, another instance gets it. Raises ApiError 503 with the code `model_died` when the process ends
    meanwhile. Cancelling it closes the connection to the process: vLLM and LitServe then stop working on the request.
    """
    refusing: set[int] = set()
    beginning = prompt.beginning(path, exchange.body) if model.has_prefix_caches else None
    trace = ledger.send(exchange, path)
    try:
        while True:
            instance = model.choose(beginning)
            try:
                await _forward_to(instance, exchange, model, path, trace)
                return
            except NotTakenError:
                instance.refused_at_s = time.monotonic()
                refusing.add(id(instance))
                other = model.choose(beginning)
                if other.state is not State.READY or id(other) in refusing:
                    raise _model_died(model, UnservedError) from None
    finally:
        ledger.receive(exchange)


async def is_dying(instance: Instance, deaths: int) -> bool:
    """Whether the process is dying: vLLM's server lives a moment longer than its engine, and answers 500 meanwhile.

    A worker of the host that has answered is not.
    """
    if instance.card is not None and instance.card.serving == "host":
        return False
    deadline_s = time.monotonic() + _DYING_S
    while instance.deaths == deaths and time.monotonic() < deadline_s:  # noqa: ASYNC110 # rare, and short
        await asyncio.sleep(0.02)
    return instance.deaths != deaths


async def _forward_to(
    instance: Instance, exchange: Exchange, model: Model, path: str, trace: Mapping[str, str] | None
) -> None:
    """See `forward`. Raises NotTakenError where another instance may have the request."""
    request = exchange.request
    if instance.connection is None:
        raise _model_died(model, ApiError if instance.address is None else UnservedError)
    query = request.query.decode("latin-1")
    instance.in_flight += 1
    deaths = instance.deaths
    try:
        reply = await instance.connection.send(
            request.method, path, exchange.body, request.upstream_headers(trace), query
        )
        exchange.tokens = reply.tokens
        try:
            if reply.status == 429 and instance.has_own_queue and (model.settings.fallback or exchange.fallback_for):
                raise _full(model, reply)
            if reply.status == 500 and instance.address is None and await is_dying(instance, deaths):
                raise _model_died(model)
            await _send_back(reply, exchange, instance)
        finally:
            reply.close()
    except NotTakenError:
        raise
    except CONNECTION_LOST as problem:
        # A server elsewhere has a quarantine of its own, and networks fail without a request's help.
        is_suspect = instance.address is None or isinstance(problem, ProcessDiedError)
        raise _model_died(model, ApiError if is_suspect else BystanderError) from None
    except AnswerBrokenError as problem:
        message = f"the answer of model '{model.name}' broke off: {problem}"
        raise ApiError(500, message, code="answer_broken") from None
    finally:
        instance.in_flight -= 1
        exchange.deaths = instance.deaths - deaths


async def _send_back(reply: Reply, exchange: Exchange, instance: Instance) -> None:
    instance.answered_at_s = time.monotonic()
    response = exchange.response
    headers = [pair for pair in reply.headers if pair[0].lower() not in DROPPED_HEADERS]
    if exchange.model is not None:
        headers.append((_VERSION, exchange.model.version.encode()))
    if reply.status >= 400:
        body = await reply.read()
        headers = [pair for pair in headers if pair[0].lower() not in _ERROR_HEADERS]
        error = translate(reply.status, body, exchange, instance.card.rules if instance.card else None)
        if isinstance(error, ApiError):
            await response.send_error(error, headers)
        else:
            await response.send_body(reply.status, error, headers)
        return
    chunks = reply.chunks
    whole = chunks.whole() if reply.body is None and isinstance(chunks, Stream) else reply.body
    await response.start(reply.status, headers, whole)
    if whole is not None:
        return
    response.source = instance
    if isinstance(chunks, Stream):
        await response.finish(await chunks.relay(response))
        return
    async for part in chunks:
        if not response.write(part):
            await response.drain()
    await response.finish()


def _full(model: Model, reply: Reply) -> ApiError:
    """The server elsewhere has no room; in the words of the front door, as another model may have."""
    waits = [value.decode("latin-1") for name, value in reply.headers if name.lower() == b"retry-after"]
    message = f"the server of model '{model.name}' has no room for more"
    return UnservedError(429, message, code="overloaded", headers={"retry-after": waits[0]} if waits else None)


def _model_died(model: Model, kind: type[ApiError] = ApiError) -> ApiError:
    instance = model.choose()
    moment = "before" if kind is UnservedError else "while"
    message = f"the process of model '{model.name}' ended {moment} it had this request; it is being restarted"
    if instance.state in (State.DRAINING, State.STOPPED):
        message = f"model '{model.name}' was stopped {moment} it had this request"
    if instance.address is not None and kind is not ApiError:
        message = f"the server of model '{model.name}' could not be reached, or left before its answer was whole"
    return kind(503, message, code="model_died", headers={"retry-after": str(instance.ready_in_s)})
