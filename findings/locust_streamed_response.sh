#!/bin/sh
# locust 2.47.0: a response read with stream=True is a success of a few milliseconds and 0 bytes, also one that breaks.
#
# Guess: the response time runs until the last byte, the length is that of the body, and a connection that the server
# breaks in the middle is a failure, as it is without `stream`.
# Seen: with HttpUser and FastHttpUser alike the request is entered when the headers are there: for a body of one second
# some 4 ms and 0 bytes. The user's code then gets an exception for the broken body, and the statistics keep a success. So
# the load of an LLM's streams needs an event of its own, fired when the stream has ended.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check locust==2.47.0
cat > "$folder/try.py" <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gevent
from locust import FastHttpUser, HttpUser
from locust.env import Environment

PART = b"data: x\n\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Five parts within a second, or three and a broken connection."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for _ in range(3 if self.path == "/breaks" else 5):
            gevent.sleep(0.2)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(PART), PART))
            self.wfile.flush()
        if self.path == "/breaks":
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None: ...


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()


def read(response: object) -> str:
    """Read all of the body; the name of what that raises."""
    try:
        if isinstance(user, FastHttpUser):
            response.stream.read()
        else:
            b"".join(response.iter_content(1024))
    except Exception as error:
        return type(error).__name__
    return "the whole body"


for kind in (HttpUser, FastHttpUser):
    for path, stream, failures in (("/whole", False, 0), ("/breaks", False, 1), ("/whole", True, 0), ("/breaks", True, 0)):
        environment = Environment()
        environment.create_local_runner()
        user = type("User", (kind,), {"host": f"http://127.0.0.1:{server.server_port}", "abstract": True})(environment)
        response = user.client.get(path, stream=stream)
        outcome = read(response) if stream else "read by locust"
        entry = environment.stats.get(path, "GET")
        print(
            f"{kind.__name__} {path} stream={stream}: {outcome}; {entry.num_failures} failures, "
            f"{entry.avg_response_time:.0f} ms, {entry.total_content_length} bytes"
        )
        assert entry.num_failures == failures
        assert (entry.avg_response_time < 200) == stream
        if stream:
            assert entry.total_content_length == 0
            assert (outcome == "the whole body") == (path == "/whole")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/try.py"
