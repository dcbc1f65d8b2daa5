"""What is shown as code is what is sent: curl, the OpenAI SDK and httpx send the same, run as they stand."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.playground import answer
from clients.playground.request import Request

NASTY = "it's \"$HOME\" `id` \\ \n\tline two % \u00fc \U0001f99c $(id) !! \x00 '"
KEY = "key-0123456789abcd"
Seen = list[tuple[str, dict[str, str], bytes]]


@pytest.fixture
def recorder() -> Iterator[tuple[str, Seen]]:
    """A server that notes path, headers and body of each request, and answers with an empty stream or object."""
    seen: Seen = []

    class Recorder(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            streams = b'"stream": true' in body or b'"stream":true' in body
            said = b"data: [DONE]\n\n" if streams else b'{"object": "list", "data": [], "model": "m"}'
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if streams else "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def run(command: list[str], cwd: Path) -> None:
    environ = {**os.environ, "OPENAI_API_KEY": KEY}
    subprocess.run(command, cwd=cwd, env=environ, check=True, capture_output=True, timeout=60)


REQUESTS = {
    "chat": answer.chat("m", [{"role": "user", "content": NASTY}], {"temperature": 0.5, "stop": ["'", "\n"]}),
    "completion": answer.completion("m", NASTY, {"seed": 2**53 + 1}),
    "embeddings": Request("/v1/embeddings", {"model": "m", "input": [NASTY, "b"], "encoding_format": "float"}),
    "object": Request("/predict/m", {NASTY: [1.5, None, True, {"deep": NASTY}]}),
    "text": Request("/predict/m", "@/etc/passwd"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_code_sends_the_same_json(name: str, recorder: tuple[str, Seen], tmp_path: Path) -> None:
    (url, seen), request = recorder, REQUESTS[name]
    httpx.post(url + request.path, **request.content())
    run(["sh", "-c", request.curl(url, with_key=True)], tmp_path)
    run([sys.executable, "-c", request.python(url, with_key=True)], tmp_path)
    sent, by_curl, by_python = seen
    assert by_curl[2] == sent[2]
    assert json.loads(by_python[2]) == json.loads(sent[2]) == request.body
    assert {path for path, _, _ in seen} == {request.path}
    assert by_curl[1]["authorization"] == by_python[1]["authorization"] == f"Bearer {KEY}"


def test_the_code_sends_the_same_form(recorder: tuple[str, Seen], tmp_path: Path) -> None:
    url, seen = recorder
    picture = tmp_path / 'a cat\'s; "best", one.png'
    picture.write_bytes(bytes(range(256)))
    request = Request("/predict/m", fields={"top_k": "3", "note": f"@{NASTY[:20]}"}, files={"image": picture})
    httpx.post(url + request.path, **request.content())
    run(["sh", "-c", request.curl(url, with_key=False)], tmp_path)
    run([sys.executable, "-c", request.python(url, with_key=False)], tmp_path)
    parts = [sorted(parts_of(headers["content-type"], body)) for _, headers, body in seen]
    assert parts[0] == parts[1] == parts[2]
    assert len(parts[0]) == 3
    assert all("authorization" not in headers for _, headers, _ in seen[1:])


def test_without_a_key_the_code_needs_none(recorder: tuple[str, Seen], tmp_path: Path) -> None:
    url, seen = recorder
    run([sys.executable, "-c", REQUESTS["chat"].python(url, with_key=False)], tmp_path)
    assert seen[0][1]["authorization"] == "Bearer none"


def test_half_a_character_is_sent_as_a_question_mark() -> None:
    assert Request("/predict/m", "a\ud83e").content()["content"] == b'"a?"'


def test_questions_that_were_never_answered_are_not_sent() -> None:
    said = [("user", "lost"), ("user", "one"), ("assistant", "two"), ("user", "three")]
    request = answer.chat("m", [{"role": role, "content": text} for role, text in said], {})
    assert [message["content"] for message in request.body["messages"]] == ["one", "two", "three"]


def parts_of(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Name, file name and media type, and the content of each part of a form."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    found = []
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        lines = sorted(line.decode() for line in head.strip().splitlines())
        found.append(("; ".join(lines).lower(), content))
    return found
