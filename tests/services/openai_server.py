"""A stand-in for an OpenAI-compatible server elsewhere, on a loop in a thread: it needs a key, and fails as it is told.

It answers each question with the name of its model, and keeps what it was sent.
"""

import asyncio
import json
import ssl
import threading
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from tests.services.polling import wait_until

KEY = "sk-of-litport-itself"
ANSWER = b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}], '
USAGE = b'"usage": {"prompt_tokens": 3,  "completion_tokens": 2, "total_tokens": 5}}'


class OpenAiServer:
    """Listens on `port` while it is `up`. `fault` is what becomes of requests that name no `max_tokens` of 1.

    `requests` has the path, the headers and the body of each, `left` counts those whose client left.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.fault = ""
        self.requests: list[tuple[str, Mapping[str, str], bytes]] = []
        self.left = 0
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "OpenAiServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Listen."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        """Close all connections, and listen no more."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    def last(self) -> tuple[str, Mapping[str, str], bytes]:
        """The last request that is no canary."""
        return wait_until(lambda: next((item for item in reversed(self.requests) if not _is_canary(item[2])), None))

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True).start()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "there", "object": "model", "created": 7, "root": "/secret"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path, headers, body))
        if headers.get("authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": f"wrong key {headers.get('authorization')}"}}, status=401)
        document = json.loads(body)
        if document["model"] != "there":
            return web.json_response({"error": {"message": f"no model {document['model']}"}}, status=404)
        if _is_canary(body):
            return web.Response(body=ANSWER + USAGE, content_type="application/json")
        return await self._answer(request, document)

    async def _answer(self, request: web.Request, document: dict[str, Any]) -> web.StreamResponse:
        if self.fault == "full":
            error = {"message": "too many requests", "type": "rate_limit_error", "code": "overloaded"}
            return web.json_response({"error": error}, status=429, headers={"Retry-After": "17", "Set-Cookie": "a=b"})
        if self.fault == "silent":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.left += 1
                raise
        if not document.get("stream"):
            return web.Response(body=ANSWER + USAGE, content_type="application/json", headers={"Set-Cookie": "a=b"})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n')
        if self.fault == "cut":
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(b'data: {"choices": [], ' + USAGE + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def _is_canary(body: bytes) -> bool:
    return b'"max_tokens": 1}' in body
