"""An item becomes a request in the form that a server takes, and a URL the endpoint that it stands for."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from benchmarks.load.request import Endpoint, Form, calls, endpoint_of
from benchmarks.load.workload import Item, make
from clients.record import Call
from configs.bench import Workload
from configs.errors import UserError

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


@pytest.mark.parametrize(("form", "kinds"), [("image", "images"), ("json", "example or texts")])
def test_a_workload_that_a_model_does_not_take_is_the_users_mistake(form: Form, kinds: str) -> None:
    with pytest.raises(UserError, match=rf"^bench\.workload\.kind: expected {kinds} for /predict/m"):
        calls([IDS], Endpoint(form, "/predict/m"), "m")


def test_a_request_keeps_its_place_its_time_and_its_length() -> None:
    item = Item(5, messages=[], output_tokens=3, at_s=1.5, after=4, session=2)
    (call,) = calls([item], Endpoint("completions", "/v1/completions"), "m")
    assert (call.index, call.at_s, call.after, call.session, call.asked_tokens) == (5, 1.5, 4, 2, 3)


@pytest.mark.parametrize(
    ("url", "workload", "address", "endpoint"),
    [
        ("h:1", None, "http://h:1", Endpoint("completions", "/v1/completions", "events")),
        ("https://h/v1/", None, "https://h", Endpoint("completions", "/v1/completions", "events")),
        ("http://h/api/v1", None, "http://h", Endpoint("completions", "/api/v1/completions", "events")),
        ("http://h/v1/completions", None, "http://h", Endpoint("completions", "/v1/completions", "events")),
        ("http://h/v1/chat/completions", None, "http://h", Endpoint("chat", "/v1/chat/completions", "events")),
        ("http://h/o/v1/chat/completions", "chat", "http://h", Endpoint("chat", "/o/v1/chat/completions", "events")),
        ("http://h/api/v1/embeddings", None, "http://h", Endpoint("embeddings", "/api/v1/embeddings")),
        ("http://h/predict/m", "images", "http://h", Endpoint("image", "/predict/m")),
        ("http://h/predict/m", None, "http://h", Endpoint("json", "/predict/m")),
        ("http://h/predict/m?top_k=3", "images", "http://h", Endpoint("image", "/predict/m?top_k=3")),
        ("http://h/predict/m", "texts", "http://h", Endpoint("json", "/predict/m")),
        *(
            ("http://h/predict/m", kind, "http://h", Endpoint("causal_lm", "/predict/m", "lines"))
            for kind in ("tokens", "shared-prefix", "chat", "file")
        ),
        *(
            (url, "texts", "http://h:1", Endpoint("embeddings", f"{base}/embeddings"))
            for url, base in (
                ("h:1", "/v1"),
                ("http://h:1/", "/v1"),
                ("http://h:1/v1", "/v1"),
                ("h:1/api/v1/", "/api/v1"),
                ("http://h:1/v1/embeddings/", "/v1"),
            )
        ),
        *(
            (url, kind, "http://h:1", Endpoint("completions", f"{base}/completions", "events"))
            for url, base in (("h:1", "/v1"), ("http://h:1/v1", "/v1"), ("h:1/api/v1/", "/api/v1"))
            for kind in ("tokens", "shared-prefix", "chat", "file", "example")
        ),
    ],
)
def test_a_url_is_the_route_that_it_names(url: str, workload: str | None, address: str, endpoint: Endpoint) -> None:
    assert endpoint_of(url, workload) == (address, endpoint)


@pytest.mark.parametrize(
    ("body", "form", "path"),
    [
        ({"input": "x"}, "embeddings", "/v1/embeddings"),
        ({"messages": []}, "completions", "/v1/completions"),
        ([1], "completions", "/v1/completions"),
    ],
)
def test_an_example_tells_its_route_whatever_the_kind_of_workload(body: Any, form: Form, path: str) -> None:
    _, endpoint = endpoint_of("h:1", "images", body)
    assert (endpoint.form, endpoint.path) == (form, path)


def test_messages_go_beside_tokens_under_a_base_path_and_a_chat_route_stays_one() -> None:
    _, base = endpoint_of("http://h/api/v1", None)
    assert [call.path for call in calls([IDS, CHAT, OWN], base, "m")] == [
        "/api/v1/completions",
        *["/api/v1/chat/completions"] * 2,
    ]
    (call,) = calls([CHAT], endpoint_of("http://h/v1/chat/completions", None)[1], "m")
    assert (call.path, json.loads(call.body)["messages"]) == ("/v1/chat/completions", CHAT.messages)


@pytest.mark.parametrize(
    ("url", "workload", "problem"),
    [
        ("ftp://h", None, "expected a URL"),
        ("http://h:70000", None, "expected a URL"),
        ("http://[::1", None, "expected a URL"),
        ("http:///v1", None, "expected a URL"),
        ("http://h", "images", "expected one of tokens, .*, texts for /v1/completions, got images, which sends pict"),
        ("http://h/v1/chat/completions", "tokens", "expected one of chat, file for /v1/chat/completions, got tokens"),
        ("http://h/v1/chat/completions", "texts", "expected one of chat, file for /v1/chat/completions, got texts"),
        ("http://h/v1/completions", "chat", "expected one of tokens, shared-prefix for /v1/completions, got chat"),
        ("http://h/v1/embeddings", "file", "expected one of texts, tokens, .* got file, which sends messages"),
        ("http://h/v1/embeddings", "images", "a model's own route is http://h/predict/MODEL"),
        ("http://h/v1/messages", "chat", "expected none, but --body with a request, for /v1/messages, got chat"),
    ],
)
def test_a_route_that_does_not_take_the_workload_is_refused(url: str, workload: str | None, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        endpoint_of(url, workload)
