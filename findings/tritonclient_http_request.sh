#!/bin/sh
# tritonclient 2.73.0, HTTP: what it sends for a numpy array.
#
# Guess: JSON with `Content-Type: application/json`, or the binary extension with `application/octet-stream`.
# Seen: binary by default, and never a Content-Type, not even for JSON. As JSON (binary_data=False) it writes NaN and
# Infinity bare, which is not JSON. A server that requires a media type, or parses strictly, cannot be its server.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "tritonclient[http]==2.73.0" "greenlet<3.4"
cat > "$folder/try.py" <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
import tritonclient.http

requests = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        requests.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
        answer = json.dumps({"model_name": "m", "outputs": []}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.server_port}")
array = numpy.array([1.0, numpy.nan], numpy.float32)
for arguments in ({}, {"binary_data": False}):
    tensor = tritonclient.http.InferInput("x", [2], "FP32")
    tensor.set_data_from_numpy(array, **arguments)
    client.infer("m", [tensor])
(binary_headers, binary_body), (json_headers, json_body) = requests
for headers, body in requests:
    print(headers, body)
names = [{name.lower() for name in headers} for headers in (binary_headers, json_headers)]
assert all("content-type" not in name for name in names)
assert "inference-header-content-length" in names[0]
assert binary_body.endswith(array.tobytes())
assert b"NaN" in json_body
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
