"""Answers as servers send them, sound and broken, read by the load generator's users in one process of its own."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from benchmarks.load import generator
from clients.record import Call, RequestRecord


class Case(NamedTuple):
    """An answer, how it is read, and what the record says: its error (None: a success), parts and output tokens."""

    read_as: str
    body: bytes
    error: str | None
    parts: int = 0
    tokens: int | None = None
    status: int = 200


def event(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "text": text}]}).encode()


A, B = event("a"), event("b")
USAGE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}'
ROLE = b'{"choices":[{"delta":{"role":"assistant","content":""}}]}'
STOP = b'{"choices":[{"delta":{},"finish_reason":"stop"}]}'
DONE = b"data: [DONE]\n\n"

CASES = {
    "plain": Case("events", b"data: " + A + b"\n\ndata: " + B + b"\n\n" + DONE, None, 2),
    "comments everywhere": Case(
        "events",
        b": hello\n\ndata: " + A + b"\n: in between\n\n:\n\n: more\ndata: " + B + b"\n\n: end\n\n" + DONE,
        None,
        2,
    ),
    "other fields": Case(
        "events",
        b"retry: 100\nid: 1\nevent: message\ndata: " + A + b"\n\nid: 2\ndata:" + B + b"\nx: y\n\n" + DONE,
        None,
        2,
    ),
    "several lines of data": Case("events", b'data: {"choices":\ndata: [{"text":"a"}]}\n\n' + DONE, None, 1),
    "CRLF": Case("events", b"data: " + A + b"\r\n\r\n: x\r\n\r\ndata: " + B + b"\r\n\r\ndata: [DONE]\r\n\r\n", None, 2),
    "both ends of lines": Case("events", b"data: " + A + b"\n\ndata: " + B + b"\r\n\r\n" + DONE, None, 2),
    "a byte order mark, blank lines, no blank line at the end": Case(
        "events", b"\xef\xbb\xbfdata: " + A + b"\n\n\n\ndata: [DONE]", None, 1
    ),
    "CR alone": Case("events", b"data: " + A + b"\r\rdata: [DONE]\r\r", "DecodeError: expected lines that end with LF"),
    "no end": Case("events", b"data: " + A + b"\n\n", "the stream ended without [DONE]", 1),
    "only the end": Case("events", DONE, "no token: "),
    "a role and a stop": Case("events", b"data: " + ROLE + b"\n\ndata: " + STOP + b"\n\n" + DONE, "no token: "),
    "an empty text": Case("events", b"data: " + event("") + b"\n\n" + DONE, "no token: ", 1),
    "an empty text that is a token": Case(
        "events", b"data: " + event("") + b"\n\ndata: " + USAGE % 1 + b"\n\n" + DONE, None, 1, 1
    ),
    "no token by the server's count": Case(
        "events", b"data: " + A + b"\n\ndata: " + USAGE % 0 + b"\n\n" + DONE, "no token: ", 1, 0
    ),
    "OpenAI's error event": Case(
        "events",
        b"data: " + A + b'\n\ndata: {"error":{"message":"out of blocks"}}\n\n',
        "error event: out of blocks",
        1,
    ),
    "a named error event": Case("events", b"event: error\ndata: the engine died\n\n", "error event: the engine died"),
    "data that is not JSON": Case("events", b"data: oops\n\n" + DONE, "DecodeError: JSON is malformed"),
    "lines": Case("lines", b'{"text":"a"}\n{"text":"b","usage":{"completion_tokens":2}}', None, 2, 2),
    "an error line": Case("lines", b'{"text":"a"}\n{"error":{"message":"full"}}\n', "error line: full", 2),
    "no lines": Case("lines", b"", "no token: "),
    "whole": Case("whole", b'{"output":1}', None, 1),
    "nothing": Case("whole", b"", "no content: ", 1),
    "refused by OpenAI's form": Case(
        "whole", b'{"error":{"message":"no\\nsuch model"}}', "status 404: no such model", 0, None, 404
    ),
    "refused by FastAPI's form": Case("whole", b'{"detail":"not you"}', "status 401: not you", 0, None, 401),
    "refused in words": Case("whole", b"<h1>Bad\ngateway</h1>", "status 502: <h1>Bad gateway</h1>", 0, None, 502),
}


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        case = list(CASES.values())[int(self.path[1:])]
        self.send_response(case.status)
        self.send_header("content-length", str(len(case.body)))
        self.end_headers()
        self.wfile.write(case.body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _LeavingServer(_Server):
    """Closes each connection a moment after its first answer, as llama.cpp's server does on a busy machine."""

    def version_string(self) -> str:
        return "llama.cpp"

    def do_POST(self) -> None:
        super().do_POST()
        self.close_connection = True
        self.wfile.flush()
        time.sleep(0.02)


@contextlib.contextmanager
def _serving(handler: type[_Server]) -> Iterator[str]:
    """The URL of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def records() -> dict[str, RequestRecord]:
    """The record of each case."""
    records: dict[str, RequestRecord] = {}
    with _serving(_Server) as url:
        for read_as in ("events", "lines", "whole"):
            names = {index: name for index, (name, case) in enumerate(CASES.items()) if case.read_as == read_as}
            calls = [Call(index, f"/{index}", b"{}") for index in names]
            records |= {
                names[record.index]: record for record in generator.generate(url, read_as, calls, 1, 60).records
            }
    return records


def test_a_server_that_leaves_after_a_stream_without_a_word_gets_each_call_anew() -> None:
    calls = [Call(index, f"/{list(CASES).index('plain')}", b"{}") for index in range(4)]
    with _serving(_LeavingServer) as url:
        result = generator.generate(url, "events", calls, 1, 60)
    assert [record.error for record in result.records] == [None] * 4


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_a_success_only_where_it_is_one(records: dict[str, RequestRecord], name: str) -> None:
    record, case = records[name], CASES[name]
    assert (record.error or "").startswith(case.error or "")
    assert (record.error is None) == (case.error is None), record.error
    assert "\n" not in (record.error or "")
    assert (len(record.chunk_s), record.output_tokens, record.status) == (case.parts, case.tokens, case.status)
