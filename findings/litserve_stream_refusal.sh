#!/bin/sh
# litserve 0.2.19: what an API refuses with a 400 is an empty 200 as soon as the API streams.
#
# Guess: an HTTPException that decode_request raises before anything was sent gives its status, with stream or without.
# Seen: 400 without `stream`, and 200 with an empty body and a proper end with it.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litserve==0.2.19 httpx
cat > "$folder/try.py" <<'PYTHON'
import os
import signal
import subprocess
import sys
import time

import fastapi
import httpx
import litserve

PORT = 18733


class API(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        raise fastapi.HTTPException(400, "no text")

    def predict(self, x):
        return x


class StreamAPI(API):
    def predict(self, x):
        yield x

    def encode_response(self, output):
        yield from output


def serve(streams):
    api = StreamAPI(stream=True) if streams else API()
    litserve.LitServer(api, accelerator="cpu").run(host="127.0.0.1", port=PORT + streams, generate_client_file=False)


def ask(streams):
    argv = [sys.executable, __file__, "stream" if streams else "whole"]
    process = subprocess.Popen(argv, start_new_session=True, stdout=sys.stderr)
    try:
        for _ in range(120):
            try:
                if httpx.get(f"http://127.0.0.1:{PORT + streams}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        answer = httpx.post(f"http://127.0.0.1:{PORT + streams}/predict", json={}, timeout=30)
        return answer.status_code, answer.text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__" and sys.argv[1:]:
    serve(streams=sys.argv[1] == "stream")
elif __name__ == "__main__":
    plain, stream = ask(streams=False), ask(streams=True)
    print(f"without stream: {plain}; with stream: {stream}")
    assert plain[0] == 400
    assert stream == (200, "")
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2>"$folder/log" || { tail -20 "$folder/log"; exit 1; }
