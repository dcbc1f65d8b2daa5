"""Errors in the shape of their route's protocol, as answers and in streams, read by the official SDKs."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest

from servers.errors import ApiError
from servers.gateway.response import Response
from tests.services.front_door import Door, open_door
from tests.services.tiny_engine import TinyEngine

MESSAGES: Any = [{"role": "user", "content": "Hello"}]
ROUTES = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/messages"})
# The tiny server streams for longer than the deadline, and its events are neither protocol's.
TOO_LONG: Any = {"extra_body": {"events": 400, "wait_s": 0.02}, "extra_headers": {"x-request-timeout": "0.3"}}
VLLMS = {"message": "no such thing", "type": "BadRequestError", "param": "body.x", "code": 400}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("shapes"), TinyEngine("one", ROUTES)) as door:
        yield door


@pytest.fixture
def of_openai(door: Door) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{door.client.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def of_anthropic(door: Door) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=str(door.client.base_url), api_key="none", max_retries=0) as client:
        yield client


def test_anthropics_client_reads_the_front_doors_error(of_anthropic: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        of_anthropic.messages.create(model="two", max_tokens=5, messages=MESSAGES)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert "'two' does not exist" in body["error"]["message"]
    assert body["request_id"] == caught.value.response.headers["x-request-id"]


def test_openais_client_reads_the_request_id_too(of_openai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        of_openai.chat.completions.create(model="two", messages=MESSAGES)
    body: Any = caught.value.body
    assert body["request_id"] == caught.value.response.headers["x-request-id"] == caught.value.request_id


def test_an_error_of_a_models_process_has_the_routes_shape(door: Door) -> None:
    fail = {"model": "one", "fail": 400, "with": {"error": VLLMS}}
    assert door.client.post("/v1/chat/completions", json=fail).json() == {"error": VLLMS}
    answer = door.client.post("/v1/messages", json=fail)
    assert answer.status_code == 400
    assert answer.json() == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "no such thing"},
        "request_id": answer.headers["x-request-id"],
    }


def test_anthropics_client_sees_the_deadline_in_a_stream(of_anthropic: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="x-request-timeout") as caught:
        list(of_anthropic.messages.create(model="one", max_tokens=5, messages=MESSAGES, stream=True, **TOO_LONG))
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "timeout_error")


def test_anthropics_helper_sees_it_too(of_anthropic: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="x-request-timeout"),
        of_anthropic.messages.stream(model="one", max_tokens=5, messages=MESSAGES, **TOO_LONG) as stream,
    ):
        stream.until_done()


def test_openais_client_sees_the_deadline_in_a_chat(of_openai: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="x-request-timeout"):
        for _ in of_openai.chat.completions.create(model="one", messages=MESSAGES, stream=True, **TOO_LONG):
            pass


def test_openais_client_sees_the_deadline_in_a_response(of_openai: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="x-request-timeout"):
        for _ in of_openai.responses.create(model="one", input="Hello", stream=True, **TOO_LONG):
            pass


def test_the_error_event_of_a_response_is_a_whole_event_with_its_number(door: Door) -> None:
    body = {"model": "one", "input": "Hello", "events": 400, "wait_s": 0.02}
    answer = door.client.post("/v1/responses", json=body, headers={"x-request-timeout": "0.3"})
    *_, last, empty = answer.text.split("\n\n")
    assert empty == ""
    name, data = last.split("\n")
    assert name == "event: error"
    assert data.startswith('data: {"type":"error","sequence_number":0,"code":"timeout","message":"no complete answer')


def test_an_error_event_stands_alone_behind_half_an_event() -> None:
    parts: list[bytes] = []

    async def keep(message: Any) -> None:
        parts.append(message.get("body", b""))

    async def write() -> None:
        way: Any = SimpleNamespace(write=parts.append)
        response = Response(keep, way, "r-1")
        await response.start(200, [(b"content-type", b"text/event-stream")])
        response.write(b'data: {"a"')
        await response.send_error(ApiError(504, "late", code="timeout"))

    asyncio.run(write())
    assert b"".join(parts).startswith(b'data: {"a"\n\ndata: {"error"')
