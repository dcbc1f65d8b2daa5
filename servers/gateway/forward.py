"""Forwarding: one request to a model's process and its answer back, byte for byte, as it comes.

The answer is never decoded or re-encoded, so a stream costs a copy a chunk. Only an error is read whole, to give it
OpenAI's shape. When the client leaves, the connection to the child is closed at once, which is how vLLM learns to stop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from servers.gateway.answer import Answer
from servers.gateway.errors import ApiError, translate
from servers.gateway.request import ClientGone, Receive, Request
from servers.model import Model

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


async def forward(
    request: Request, body: bytes, model: Model, path: str, timeout_s: float | None, receive: Receive, answer: Answer
) -> None:
    """Send the request to the model's process under `path`, and its answer to the client.

    Raises ApiError when the process dies (503) or `timeout_s` is over (504), ClientGone when the client leaves.
    """
    assert model.session is not None
    url = URL.build(path=path, query_string=request.query.decode("latin-1"), encoded=True)
    async with _while_client_waits(receive, timeout_s):
        try:
            async with model.session.request(
                request.method, url, data=body, headers=request.upstream_headers(), allow_redirects=False
            ) as upstream:
                await _return(upstream, request, body, answer)
        except (aiohttp.ClientError, OSError):
            message = f"the process of model '{model.name}' ended while it had this request; it is being restarted"
            raise ApiError(503, message, code="model_died", headers={"retry-after": "5"}) from None


async def _return(upstream: aiohttp.ClientResponse, request: Request, body: bytes, answer: Answer) -> None:
    headers = [pair for pair in upstream.raw_headers if pair[0].lower() not in _NOT_RETURNED]
    if upstream.status >= 400:
        status, error = translate(upstream.status, await upstream.read(), request.content_type, body)
        own = (b"content-length", b"content-type")
        await answer.whole(status, error, [pair for pair in headers if pair[0].lower() not in own])
        return
    await answer.start(upstream.status, headers)
    async for chunk in upstream.content.iter_any():
        await answer.write(chunk)
    await answer.finish()


@contextlib.asynccontextmanager
async def _while_client_waits(receive: Receive, timeout_s: float | None) -> AsyncIterator[None]:
    """Cancel the block when the client leaves (ClientGone) or the time is over (ApiError 504)."""
    gone = False
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        limit.reschedule(loop.time())

    watcher = loop.create_task(watch())
    try:
        async with asyncio.timeout(timeout_s) as limit:
            yield
    except TimeoutError:
        if gone:
            raise ClientGone from None
        message = f"no complete answer within {timeout_s:g} s (limits.request_timeout_s)"
        raise ApiError(504, message, code="timeout") from None
    finally:
        watcher.cancel()
