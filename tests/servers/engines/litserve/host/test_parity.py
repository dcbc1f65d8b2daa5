"""Each kind of LitAPI answers on the worker host as on plain LitServe, but for the differences that are meant."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from servers.processes.group import ProcessGroup
from tests.servers.engines.litserve.child import REPOSITORY, STRANGERS
from tests.servers.engines.litserve.host.hosted import hosting

pytestmark = pytest.mark.long

_DOCUMENTED = f"{STRANGERS}/documented.py"
_FORM = "multipart/form-data; boundary=x"
_UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="content"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\x00\x01\xff\r\n--x--\r\n"
)


class Raw(NamedTuple):
    """A request body as bytes."""

    content_type: str
    data: bytes


class Outcome(NamedTuple):
    """What a client sees."""

    status: int
    content_type: str | None
    body: bytes
    is_whole: bool = True


def _case(name: str, api: str, *requests: Any, **settings: Any) -> dict[str, Any]:
    file = api if ":" in api else f"{_DOCUMENTED}:{api}"
    return {"name": name, "api": file, "requests": requests, **settings}


def _chat(text: str, **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **options}


_VALUES = [
    "text",
    "none",
    "floats",
    "big",
    "tuple",
    "set",
    "keys",
    "date",
    "delta",
    "path",
    "enum",
    "point",
    "model",
    "models",
    "bytes",
    "float64",
    "response",
    "large",
]

CASES = [
    _case("simple", "SimpleAPI", {"input": 3}, {"input": 2.5}),
    _case(
        "bare",
        "BareAPI",
        {"a": [1, None, "é", 1e300]},
        [1],
        "x",
        5,
        None,
        Raw("text/plain", b'{"a": 1}'),
    ),
    _case(
        "typed",
        "TypedAPI",
        {"text": "hello"},
        {"text": "hello", "top_k": "1"},
        {"text": "x"},
        {},
        [],
        Raw("application/json", b'{"text": '),
        Raw("text/plain", b'{"text": "hello"}'),
        Raw("application/vnd.x+json", b'{"text": "hello"}'),
    ),
    _case(
        "form",
        "FormAPI",
        {"content": "AAH/", "name": "n"},
        Raw(_FORM, _UPLOAD),
        Raw("application/x-www-form-urlencoded", b"content=AAH%2F&name=n+m"),
    ),
    _case("batched", "BatchedAPI", {"input": 3}, {"input": [1, 2]}, max_batch_size=4, batch_timeout=0.01),
    _case("collating", "CollatingAPI", {"input": 3}, {"input": 3, "scale": 2}, max_batch_size=4, batch_timeout=0.01),
    _case("stream", "StreamAPI", {"count": 3}, {"count": 0}, stream=True),
    _case("stream-text", "StreamTextAPI", {}, stream=True),
    _case("events", "EventsAPI", {"prompt": "a b c"}, stream=True),
    _case("batched-stream", "BatchedStreamAPI", {"prompt": "p"}, stream=True, max_batch_size=2, batch_timeout=0.01),
    _case(
        "chat",
        "ChatAPI",
        _chat("one two"),
        _chat("one two", stream=True),
        _chat("one two", n=2),
        _chat("one two", n=2, stream=True),
        _chat("fail"),
        {"messages": "no"},
    ),
    _case("chat-usage", "ChatUsageAPI", _chat("x", temperature=0.5), _chat("x", stream=True)),
    _case("chat-async", "AsyncChatAPI", _chat("one two"), _chat("one two", stream=True)),
    _case(
        "vectors",
        "VectorsAPI",
        {"input": "text", "model": "m"},
        {"input": ["text", "b"], "model": "m"},
        {"input": "text", "model": "m", "encoding_format": "base64"},
        {"input": 5, "model": "m"},
    ),
    _case("async", "AsyncAPI", {"input": 4}),
    _case("async-stream", "AsyncStreamAPI", {"count": 3}),
    _case("values", "ValuesAPI", *({"value": value} for value in _VALUES)),
    _case("failing", "FailingAPI", *({"where": where} for where in ("decode", "predict", "key"))),
    _case("squares", f"{STRANGERS}/squares.py:SquaresAPI", {"input": 3}, {"input": "x"}, init={"power": 3}),
    _case("batches", f"{STRANGERS}/batches.py:BatchesAPI", {"input": [1]}, max_batch_size=2, batch_timeout=0.01),
    _case("countdown", f"{STRANGERS}/streams.py:CountdownAPI", {"from": 3}, stream=True),
    _case("echo", "servers.apis.echo:EchoAPI", {"input": 1}, {}, Raw("application/json", b"[")),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("plain")
    (folder / "cases.json").write_text(json.dumps([{**case, "requests": []} for case in CASES]))
    path, log_file = folder / "s", folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                str(Path(__file__).with_name("plain.py")),
                str(folder / "cases.json"),
                str(path),
            ],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://m", timeout=30) as client:
            deadline = time.monotonic() + 120
            while not _is_ready(path, client):
                assert process.poll() is None, log_file.read_text()[-3000:]
                assert time.monotonic() < deadline, log_file.read_text()[-3000:]
                time.sleep(0.3)
            yield client
    finally:
        ProcessGroup(process.pid).kill()
        process.wait()


def _is_ready(path: Path, client: httpx.Client) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:  # httpx would leak a socket at each refusal
        if probe.connect_ex(str(path)) != 0:
            return False
    return client.get("/health").status_code == 200


def _raw(request: Any) -> Raw:
    return request if isinstance(request, Raw) else Raw("application/json", json.dumps(request).encode())


def _ask_plain(client: httpx.Client, path: str, request: Any) -> Outcome:
    content_type, data = _raw(request)
    headers = {"content-type": content_type, "accept-encoding": "identity"}
    with client.stream("POST", path, content=data, headers=headers) as response:
        body = b""
        try:
            for part in response.iter_raw():
                body += part
        except httpx.RemoteProtocolError:
            return Outcome(response.status_code, response.headers.get("content-type"), body, is_whole=False)
    return Outcome(response.status_code, response.headers.get("content-type"), body)


def _without_ids(outcome: Outcome) -> Outcome:
    body = re.sub(rb"chatcmpl-[0-9a-f]+", b"chatcmpl-0", outcome.body)
    return outcome._replace(body=re.sub(rb'"created":\d+', b'"created":0', body))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_an_api_answers_as_on_plain_litserve(case: dict[str, Any], plain: httpx.Client, tmp_path: Path) -> None:
    spec = {name: value for name, value in case.items() if name not in ("name", "requests")}

    async def run() -> tuple[dict[str, Any], list[Outcome]]:
        outcomes = []
        async with hosting(tmp_path, **spec) as host:
            for request in case["requests"]:
                content_type, data = _raw(request)
                answer = await host.post(content_type=content_type, data=data)
                outcomes.append(Outcome(answer.status, answer.content_type, answer.body, answer.broken is None))
        return host.card["openapi"], outcomes

    document, hosted = asyncio.run(run())
    for request, outcome in zip(case["requests"], hosted, strict=True):
        expected = _ask_plain(plain, f"/{case['name']}", request)
        assert _without_ids(outcome) == _without_ids(expected), request
    documented = plain.get("/openapi.json").json()
    (routes,) = (routes for path, routes in document["paths"].items())
    expected_routes = documented["paths"][f"/{case['name']}"]
    if case["name"] != "echo":  # which declares more than its signature can say
        assert _plain_words(routes["post"]) == _plain_words(expected_routes["post"])


def _plain_words(route: dict[str, Any]) -> dict[str, Any]:
    """A route without its path's name and what Litport adds to the document."""
    added = {"description", "operationId", "responses"}
    schema = route.get("requestBody", {}).get("content", {})
    return {name: value for name, value in route.items() if name not in added} | {"media types": list(schema)}
