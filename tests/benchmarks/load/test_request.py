"""An item becomes a request in the form that a server takes, and a URL the endpoint that it stands for."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from benchmarks.load.request import Endpoint, Form, calls
from benchmarks.load.workload import Item, make
from clients.record import Call
from configs.bench import Workload

LIMITS = {"max_tokens": 3, "ignore_eos": True, "temperature": 0}
STREAM = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
IDS = Item(0, token_ids=[[1, 2]], output_tokens=3)
CHAT = Item(0, messages=[{"role": "user", "content": "Hello"}], output_tokens=3)
OWN = Item(0, body={"messages": [], "seed": 5, "model": "other"})


def form_of(call: Call) -> dict[str, bytes]:
    """The fields of a multipart form, as starlette reads them."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield call.body

    async def parse() -> dict[str, bytes]:
        form = await MultiPartParser(Headers({"content-type": call.content_type}), stream()).parse()
        files = {name: file for name, file in form.items() if isinstance(file, UploadFile)}
        read = {name: await file.read() for name, file in files.items()}
        await form.close()
        return read

    return asyncio.run(parse())


@pytest.mark.parametrize(
    ("item", "form", "path", "body"),
    [
        (IDS, "completions", "/v1/completions", {"prompt": [1, 2], **LIMITS, **STREAM}),
        (CHAT, "completions", "/v1/chat/completions", {"messages": CHAT.messages, **LIMITS, **STREAM}),
        (OWN, "completions", "/v1/chat/completions", {"messages": [], "seed": 5, **STREAM}),
        (Item(0, token_ids=[[1], [2, 3]]), "embeddings", "/v1/embeddings", {"model": "m", "input": [[1], [2, 3]]}),
        (IDS, "causal_lm", "/predict/m", {"prompt_token_ids": [1, 2], **LIMITS}),
        (CHAT, "causal_lm", "/predict/m", {"messages": CHAT.messages, **LIMITS}),
        (Item(0, body={"input": 4}), "json", "/predict/m", {"input": 4}),
    ],
)
def test_an_item_becomes_the_request_that_a_server_takes(item: Item, form: Form, path: str, body: Any) -> None:
    (call,) = calls([item], Endpoint(form, path.replace("/chat", "")), "m")
    assert (call.path, call.content_type) == (path, "application/json")
    assert json.loads(call.body) == body


def test_a_picture_becomes_a_form_with_a_file() -> None:
    (item,) = make(Workload(kind="images"), 1, 0)
    (call,) = calls([item], Endpoint("image", "/predict/m"), "m")
    assert form_of(call) == {"image": item.picture}


def test_a_request_keeps_its_place_its_time_and_its_length() -> None:
    item = Item(5, messages=[], output_tokens=3, at_s=1.5, after=4, session=2)
    (call,) = calls([item], Endpoint("completions", "/v1/completions"), "m")
    assert (call.index, call.at_s, call.after, call.session, call.asked_tokens) == (5, 1.5, 4, 2, 3)
