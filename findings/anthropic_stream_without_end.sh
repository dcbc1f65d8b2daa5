#!/bin/sh
# anthropic 2.12.0: a stream of a message that breaks off in the middle is a whole message to the SDK.
#
# Guess: a stream that ends without `message_stop`, or that carries an error, raises.
# Seen: get_final_message() returns the half text with stop_reason None when the stream just ends, when it ends by an error
# in OpenAI's form, and even by an error in Anthropic's own form if the line `event: error` is missing. Only with that
# line is there an exception. So who speaks this protocol has to name the event, and who reads it has to look at stop_reason.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check anthropic==2.12.0
cat > "$folder/try.py" <<'PYTHON'
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic

message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
events = [
    {"type": "message_start", "message": message | {"usage": {"input_tokens": 1, "output_tokens": 0}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half"}},
]
start = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
error = {"type": "error", "error": {"type": "api_error", "message": "the engine died"}}
ends = {
    "nothing": ("", "half"),
    "an error in OpenAI's form": (f"data: {json.dumps({'error': error['error']})}\n\n", "half"),
    "Anthropic's error without `event:`": (f"data: {json.dumps(error)}\n\n", "half"),
    "Anthropic's error": (f"event: error\ndata: {json.dumps(error)}\n\n", "APIStatusError"),
}
body = b""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.server_port}", api_key="-", max_retries=0)
for name, (end, expected) in ends.items():
    body = (start + end).encode()
    try:
        with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as stream:
            answer = stream.get_final_message()
        outcome = answer.content[0].text
        assert answer.stop_reason is None
    except anthropic.APIStatusError as raised:
        outcome = type(raised).__name__
    print(f"ends by {name}: {outcome}")
    assert outcome == expected
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
