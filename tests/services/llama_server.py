"""A stand-in for llama.cpp's `llama-server`: its routes and its loading state, without a model.

It takes the options that Litport sets, and answers each prompt with its own name. As the real one, it closes a
connection after a streamed answer without a word before, and has headers for pages of other origins.
"""

import argparse
import asyncio
import json
from typing import Any

from aiohttp import web


def _usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}


async def _chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if "messages" not in body:
        error = {"code": 400, "message": "'messages' is required", "type": "invalid_request_error"}
        return web.json_response({"error": error}, status=400)
    message = {"role": "assistant", "content": request.app["alias"]}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"object": "chat.completion", "choices": [choice], "usage": _usage(2)})
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "server": "llama.cpp"})
    await response.prepare(request)
    timings = {"cache_n": 2, "prompt_n": 1, "prompt_ms": 0.5, "predicted_n": 2, "predicted_ms": 0.5}
    events: tuple[dict[str, Any], ...] = (
        {"choices": [{"index": 0, "delta": message}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "timings": timings},
    )
    for event in events:
        chunk = {"object": "chat.completion.chunk", **event}
        await response.write(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    if request.transport is not None:
        request.transport.close()
    return response


async def _complete(request: web.Request) -> web.Response:
    count = int((await request.json())["max_tokens"])
    choice = {"index": 0, "text": " 4", "finish_reason": "length"}
    document = {"object": "text_completion", "choices": [choice], "usage": _usage(count)}
    return web.json_response(document, headers={"access-control-allow-origin": ""})


async def _health(request: web.Request) -> web.Response:
    loaded = asyncio.get_running_loop().time() > request.app["loaded_at_s"]
    return web.json_response({"status": "ok"} if loaded else {"error": {"code": 503}}, status=200 if loaded else 503)


async def _models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": request.app["alias"], "object": "model"}]})


async def _properties(request: web.Request) -> web.Response:
    capabilities = {"supports_tools": False}
    return web.json_response({"total_slots": request.app["slots"], "chat_template_caps": capabilities})


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(text="llamacpp:requests_processing 0\n")


async def _app(alias: str, slots: int) -> web.Application:
    app = web.Application()
    app["alias"], app["slots"] = alias, slots
    app["loaded_at_s"] = asyncio.get_running_loop().time() + 0.3
    app.add_routes(
        [
            web.get("/health", _health),
            web.get("/v1/models", _models),
            web.get("/props", _properties),
            web.get("/metrics", _metrics),
            web.post("/v1/chat/completions", _chat),
            web.post("/v1/completions", _complete),
        ]
    )
    return app


def main() -> None:
    """Serve on the Unix socket that `--host` names."""
    parser = argparse.ArgumentParser()
    for option in ("--model", "--alias", "--host"):
        parser.add_argument(option, required=True)
    for flag in ("--no-webui", "--no-slots", "--metrics"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--parallel", type=int, default=4)
    options = parser.parse_args()
    web.run_app(_app(options.alias, options.parallel), path=options.host, print=None)


if __name__ == "__main__":
    main()
