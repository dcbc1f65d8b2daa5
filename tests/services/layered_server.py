"""A stand-in for vLLM's server, for tests only: every layer takes a time that the test knows.

It streams completions as vLLM does, and counts in series of vLLM's names what its own clock says, so that a breakdown
can be held against known answers.

    python -m tests.services.layered_server '{"http_s": 0.02, ...}' PORT_OR_SOCKET

Times in seconds: `http_s` before the engine has the request, `template_s`, `queue_s`, `prefill_s` (then the first token
is there), `decode_s` from the first token to the last, `tail_s` between the last token and the end of the answer.
Others: `tokens` (instead of those asked for), `hit_share` (of the prompt, from the prefix cache), `fail_every` (each
n-th request is a 500, or `fail_status`), `slower_after` and `slow_s` (an extra queue time from that request on). PUT
/times sets others and counts requests from the beginning.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

TIMES: dict[str, Any] = {}
REGISTRY = CollectorRegistry()
SECONDS = {
    name: Histogram(name, name, registry=REGISTRY)
    for name in (
        "http_request_duration_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:time_to_first_token_seconds",
        "vllm:request_queue_time_seconds",
        "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",
    )
}
QUERIES = Counter("vllm:prefix_cache_queries", "tokens", registry=REGISTRY)
HITS = Counter("vllm:prefix_cache_hits", "tokens", registry=REGISTRY)
app = FastAPI()
seen = 0


@app.get("/health")
async def health() -> str:
    return "ok"


@app.post("/predict")
async def canary() -> dict[str, Any]:
    return {}


@app.get("/v1/models")
async def models() -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "m", "object": "model"}]}


@app.put("/times")
async def set_times(times: dict[str, Any]) -> None:
    global seen
    seen = 0
    TIMES.clear()
    TIMES.update(times)


@app.get("/metrics")
async def metrics() -> PlainTextResponse:
    return PlainTextResponse(generate_latest(REGISTRY))


@app.post("/v1/completions")
async def completions(request: Request) -> Response:
    global seen  # one server, one count
    begin_s = time.monotonic()
    body = await request.json()
    seen += 1
    number = seen
    if TIMES.get("fail_every") and number % TIMES["fail_every"] == 0:
        body = '{"error": {"message": "told to fail"}}'
        return Response(body, status_code=TIMES.get("fail_status", 500), media_type="application/json")
    asked = TIMES.get("tokens") or body["max_tokens"]
    prompt_tokens = len(body["prompt"])
    if not body.get("stream"):
        tokens = list(range(asked))
        choice = {"text": " word" * asked, "token_ids": tokens, "logprobs": {"token_logprobs": [-0.5] * asked}}
        return Response(json.dumps({"choices": [choice]}), media_type="application/json")
    QUERIES.inc(prompt_tokens)
    HITS.inc(prompt_tokens * TIMES.get("hit_share", 0.0))
    await _sleep("http_s")
    return StreamingResponse(_events(begin_s, number, prompt_tokens, asked), media_type="text/event-stream")


async def _events(begin_s: float, number: int, prompt_tokens: int, asked: int) -> AsyncIterator[bytes]:
    arrived_s = time.monotonic()
    await _sleep("template_s")
    queued_s = time.monotonic()
    late = number > TIMES.get("slower_after", number)
    await asyncio.sleep(TIMES.get("queue_s", 0.0) + (TIMES.get("slow_s", 0.0) if late else 0.0))
    scheduled_s = time.monotonic()
    await _sleep("prefill_s")
    first_s = time.monotonic()
    for index in range(asked):
        if index:
            await asyncio.sleep(TIMES.get("decode_s", 0.0) / (asked - 1))
        yield _event({"choices": [{"index": 0, "text": " word"}]})
    last_s = time.monotonic()
    for name, value in (
        ("vllm:time_to_first_token_seconds", first_s - arrived_s),
        ("vllm:request_queue_time_seconds", scheduled_s - queued_s),
        ("vllm:request_prefill_time_seconds", first_s - scheduled_s),
        ("vllm:request_decode_time_seconds", last_s - first_s),
        ("vllm:e2e_request_latency_seconds", last_s - arrived_s),
    ):
        SECONDS[name].observe(value)
    await _sleep("tail_s")
    yield _event({"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": asked}})
    SECONDS["http_request_duration_seconds"].observe(time.monotonic() - begin_s)
    yield b"data: [DONE]\n\n"


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


async def _sleep(name: str) -> None:
    await asyncio.sleep(TIMES.get(name, 0.0))


if __name__ == "__main__":
    TIMES.update(json.loads(sys.argv[1]))
    where = {"port": int(sys.argv[2])} if sys.argv[2].isdigit() else {"uds": sys.argv[2]}
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, log_level="warning", **where)
