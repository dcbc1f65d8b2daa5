#!/bin/sh
# openai 3.57.0: a Retry-After above 120 s ends the retries, and x-should-retry does not bring them back.
#
# Guess: a wait that is too long is cut, or replaced by the client's own backoff, and `x-should-retry: true` decides.
# Seen: a 429 with `retry-after: 121` is raised after one request, with or without `x-should-retry: true`. Without a
# Retry-After, and with one of 0 or of a word, the same server is asked three times (max_retries is 2 by default). So a
# server that wants to be asked again states at most 120.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
cat > "$folder/try.py" <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai

headers: dict[str, str] = {}
count = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        global count
        count += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(429)
        for name, value in {**headers, "content-length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="-")
expected = [
    ({}, 3),
    ({"retry-after": "0"}, 3),
    ({"retry-after": "soon"}, 3),
    ({"retry-after": "121"}, 1),
    ({"retry-after": "121", "x-should-retry": "true"}, 1),
]
for headers, requests in expected:
    count = 0
    try:
        client.embeddings.create(model="m", input="x")
    except openai.RateLimitError:
        pass
    print(f"{headers}: {count} requests")
    assert count == requests, f"expected {requests}"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
