#!/bin/sh
# litserve 0.2.19: a batched predict that returns columns answers each client with the name of a column, status 200.
#
# Guess: predict must return a list with an answer for each request; a dict of lists is an error, or is split by rows.
# Seen: only the length is compared. A dict with as many keys as the batch has requests passes, and its iteration gives
# the keys: one client gets "label", the other "score". With one more key it is an error.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check litserve==0.2.19 httpx
cat > "$folder/try.py" <<'PYTHON'
import asyncio
import os
import signal
import subprocess
import sys
import time

import httpx
import litserve

PORT = 18731


class API(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, batch):
        return {"label": ["cat"] * len(batch), "score": [0.5] * len(batch)}

    def encode_response(self, output):
        return {"output": output}


def serve():
    api = API(max_batch_size=2, batch_timeout=2)
    litserve.LitServer(api, accelerator="cpu").run(host="127.0.0.1", port=PORT, generate_client_file=False)


async def ask():
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=30) as client:
        return await asyncio.gather(*(client.post("/predict", json={"input": index}) for index in range(2)))


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
        answers = asyncio.run(ask())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print([(answer.status_code, answer.json()) for answer in answers])
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(answer.json()["output"] for answer in answers) == ["label", "score"]
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2>"$folder/log" || { tail -20 "$folder/log"; exit 1; }
