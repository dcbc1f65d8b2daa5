#!/bin/sh
# litserve 0.2.19 with openai 3.57.0: a chat stream that fails half-way looks like a whole answer to OpenAI's client.
#
# Guess: the client raises an APIError, or at least meets a connection that broke.
# Seen: the server writes its error as the last event, but without the blank line that ends an event, and closes the answer
# properly. The client drops what is not a whole event: the loop ends without an exception, after the text so far. No
# chunk has a finish_reason, which is the only trace.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litserve==0.2.19 openai==3.57.0 httpx
cat > "$folder/try.py" <<'PYTHON'
import os
import signal
import subprocess
import sys
import time

import httpx
import litserve
import openai

PORT = 18732


class API(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, prompt):
        yield "half"
        raise RuntimeError("no memory left")


def serve():
    server = litserve.LitServer(API(spec=litserve.OpenAISpec()), accelerator="cpu")
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False)


if __name__ == "__main__" and sys.argv[1:]:
    serve()
elif __name__ == "__main__":
    process = subprocess.Popen([sys.executable, __file__, "serve"], start_new_session=True, stdout=sys.stderr)
    try:
        for _ in range(120):
            try:
                if httpx.get(f"http://127.0.0.1:{PORT}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        text = httpx.post(f"http://127.0.0.1:{PORT}/v1/chat/completions", json=body, timeout=30).text
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="-", max_retries=0)
        chunks = list(client.chat.completions.create(**body))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print("the end of the stream:", repr(text[-120:]))
    content = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    reasons = {chunk.choices[0].finish_reason for chunk in chunks}
    print(f"OpenAI's client: {content!r}, finish_reason {reasons}, no exception")
    assert "error" in text.rsplit("\n\n", 1)[-1], "the last event is whole now"
    assert (content, reasons) == ("half", {None})
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2>"$folder/log" || { tail -20 "$folder/log"; exit 1; }
