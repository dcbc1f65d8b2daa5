"""Forwarding: one request to a model's process and its answer back, byte for byte, as it comes.

The answer is never decoded or re-encoded, so a stream costs a copy a chunk. Only an error is read whole, to give it
OpenAI's shape.
"""

import asyncio
import time
from collections.abc import Mapping

from servers.engines.connection import CONNECTION_LOST, Reply
from servers.errors import ApiError
from servers.gateway.errors import translate
from servers.gateway.request import Request
from servers.gateway.response import Answer
from servers.models.instance import Instance
from servers.models.model import Model

# Headers that belong to one connection (RFC 9110, 7.6.1), or that the front door sets itself.
_NOT_RETURNED = frozenset(
    {
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
    }
)

_DYING_S = 0.5


async def forward(
    request: Request, body: bytes, model: Model, path: str, answer: Answer, trace: Mapping[str, str] | None = None
) -> None:
    """Send the request to the model's process under `path`, and its answer to the client.

    `trace` are headers that take the place of the client's own trace context.

    Raises ApiError 503 with the code `model_died` when the process dies meanwhile. Cancelling it closes the connection
    to the process, which is how vLLM and LitServe learn that nobody waits any more.
    """
    instance = model.choose()
    if instance.connection is None:
        raise _died(model)
    query = request.query.decode("latin-1")
    instance.in_flight += 1
    deaths = instance.deaths
    try:
        reply = await instance.connection.send(request.method, path, body, request.upstream_headers(trace), query)
        try:
            if reply.status == 500 and await _dies(instance, deaths):
                raise _died(model)
            await _return(reply, request, body, instance, answer)
        finally:
            reply.close()
    except CONNECTION_LOST:
        raise _died(model) from None
    finally:
        instance.in_flight -= 1


async def _return(reply: Reply, request: Request, body: bytes, instance: Instance, answer: Answer) -> None:
    instance.answered_at_s = time.monotonic()
    headers = [pair for pair in reply.headers if pair[0].lower() not in _NOT_RETURNED]
    if reply.status >= 400:
        status, error = translate(reply.status, await reply.read(), request.content_type, body)
        own = (b"content-length", b"content-type")
        await answer.whole(status, error, [pair for pair in headers if pair[0].lower() not in own])
        return
    await answer.start(reply.status, headers)
    async for chunk in reply.chunks:
        instance.answered_at_s = time.monotonic()
        await answer.write(chunk)
    await answer.finish()


async def _dies(instance: Instance, deaths: int) -> bool:
    """Whether the process is dying: vLLM's server lives a moment longer than its engine, and answers 500 meanwhile."""
    until_s = time.monotonic() + _DYING_S
    while instance.deaths == deaths and time.monotonic() < until_s:  # noqa: ASYNC110 # seldom, and not for long
        await asyncio.sleep(0.02)
    return instance.deaths != deaths


def _died(model: Model) -> ApiError:
    message = f"the process of model '{model.name}' ended while it had this request; it is being restarted"
    return ApiError(503, message, code="model_died", headers={"retry-after": str(model.choose().ready_in_s)})
