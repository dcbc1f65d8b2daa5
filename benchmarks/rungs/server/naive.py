"""A naive server: FastAPI around the model, as a tutorial writes it.

    python -m benchmarks.rungs.server.naive SPEC.json

The endpoint is a coroutine that calls the model, so requests run one after the other; there is no queue, no batch and
no stream. Most home-made servers are like this, and it is not made better than they are.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import Histogram, generate_latest

from benchmarks.load.workload import Item
from benchmarks.rungs.answer import answer_of
from benchmarks.rungs.bare.api_model import ApiModel

HTTP_S = Histogram("naive_http_seconds", "Whole requests, in seconds")
MODEL_S = Histogram("naive_model_seconds", "The part of it that the model took, in seconds")


def main(spec_file: str) -> None:
    """Load the model and serve it."""
    spec = json.loads(Path(spec_file).read_text())
    app = FastAPI()
    if spec["rung_of"] == "llm":
        _add_generate(app, spec)
    else:
        _add_predict(app, spec)
    app.get("/health")(lambda: "ok")
    app.get("/metrics")(lambda: PlainTextResponse(generate_latest()))
    app.add_middleware(_Timer)
    uvicorn.run(app, host="127.0.0.1", port=spec["port"], log_level="warning")


class _Timer:
    """Times whole requests, as plain ASGI: FastAPI's own kind of middleware would hold answers back."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begin_s = time.monotonic()
        await self._app(scope, receive, send)
        if scope["type"] == "http" and scope["method"] == "POST":
            HTTP_S.observe(time.monotonic() - begin_s)


def _add_generate(app: FastAPI, spec: dict[str, Any]) -> None:
    from benchmarks.rungs.bare.transformers_model import TransformersModel

    model = TransformersModel(Path(spec["model_dir"]), spec["dtype"], batch_size=1)

    @app.post("/generate")
    async def generate(body: dict[str, Any]) -> dict[str, Any]:
        prompt = body.get("prompt_token_ids")
        item = Item(
            0,
            token_ids=[prompt] if prompt else None,
            messages=body.get("messages"),
            output_tokens=body["max_tokens"],
        )
        begin_s = time.monotonic()
        ids = model.generate(item)
        MODEL_S.observe(time.monotonic() - begin_s)
        return {"token_ids": ids, "usage": {"completion_tokens": len(ids)}}


def _add_predict(app: FastAPI, spec: dict[str, Any]) -> None:
    model = ApiModel(spec["api"], spec["arguments"], spec["device"])

    @app.post("/predict")
    async def predict(request: Request) -> Any:
        item = await item_of(request, spec["form"])
        begin_s = time.monotonic()
        output = model.predict(item)
        MODEL_S.observe(time.monotonic() - begin_s)
        return document_of(output)


async def item_of(request: Request, form: str) -> Item:
    """What a request asks of a LitAPI that takes requests of this form (`Endpoint.form`)."""
    if request.headers["content-type"].startswith("multipart/form-data"):
        return Item(0, picture=await (await request.form())["image"].read())  # type: ignore[union-attr]
    body = await request.json()
    texts = body.get("input") if form == "embeddings" else None
    return Item(0, token_ids=texts) if texts else Item(0, body=body)


def document_of(output: Any) -> dict[str, Any]:
    """The JSON that answers with what a LitAPI returned."""
    answer = answer_of(output)
    return {"vectors": answer.vectors, "labels": answer.labels, "scores": answer.scores}


if __name__ == "__main__":
    main(sys.argv[1])
