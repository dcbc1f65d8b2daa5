"""A stand-in for an engine's server, for tests only: a few routes on a Unix socket, with a worker process beside it.

It streams numbered events, answers slowly or after some work, errs, or dies, as the request asks, and writes down in
the folder of its socket when a client left. By the variable TINY_ANSWER its answers have that text (to `plain` requests
nothing else), by TINY_WAIT_S they take longer, and by TINY_FAIL_PLAIN those to `plain` requests are errors.

    python -m tests.services.tiny_server SOCKET
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from servers.gateway.request import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer by path; a POST's JSON body says how."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body) if body.startswith(b"{") else {}
    if scope["path"] == "/health":
        await _answer(send, 200, {})
    elif scope["path"] == "/metrics":
        await _tell(send)
    elif asked.get("plain") and "TINY_FAIL_PLAIN" in os.environ:
        await _answer(send, 500, {})
    elif asked.get("fail"):
        await _answer(send, asked["fail"], asked["with"])
    elif asked.get("events"):
        await _stream(asked, receive, send)
    else:
        await asyncio.sleep(asked.get("wait_s", 0) + float(os.environ.get("TINY_WAIT_S", "0")))
        end_s = time.process_time() + asked.get("burn_s", 0)
        while time.process_time() < end_s:
            pass
        for burn_s in asked.get("processes_burn_s", []):
            code = f"import time\nwhile time.process_time() < {burn_s}: pass"
            subprocess.run([sys.executable, "-S", "-c", code], check=True)  # noqa: ASYNC221 # it is to be silent
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = {"pid": os.getpid(), "path": scope["path"], "query": scope["query_string"].decode(), "headers": headers}
        answer = {"answer": os.environ.get("TINY_ANSWER", "one")}
        await _answer(send, 200, answer if asked.get("plain") else {**seen, "bytes": len(body), **answer})


async def _stream(asked: dict[str, Any], receive: Receive, send: Send) -> None:
    """So many `events`, `wait_s` apart; notes in the file `left` how far it got when the client left."""
    left = asyncio.ensure_future(receive())
    kind = asked.get("content_type", "text/event-stream").encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for number in range(asked["events"]):
        if left.done():
            Path(SOCKET.parent, "left").write_text(str(number))  # noqa: ASYNC240 # a few bytes, in a test
            return
        await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
        await asyncio.sleep(asked.get("wait_s", 0))
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _tell(send: Send) -> None:
    """What it counts; a test may write another page into the file `metrics` beside the socket."""
    page = Path(SOCKET.parent, "metrics")
    text = page.read_text() if page.exists() else f"# TYPE tiny_pid gauge\ntiny_pid {os.getpid()}\n"  # noqa: ASYNC240
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


async def _answer(send: Send, status: int, document: object) -> None:
    headers = [(b"content-type", b"application/json"), (b"server", b"tiny")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    SOCKET = Path(sys.argv[1])
    held = b"x" * int(os.environ.get("TINY_BYTES", "0"))
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "tiny-worker"])
    uvicorn.run(app, uds=str(SOCKET), log_level="warning", timeout_graceful_shutdown=1)
