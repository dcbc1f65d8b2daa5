"""A stand-in for vLLM's server as far as adapters go, for tests only: it lists, loads and unloads them.

One whose name begins with "bad" is refused. Answers tell the process and the adapter that was asked for.

    python -m tests.services.lora_server SOCKET MODEL NAME=PATH...
"""

import json
import os
import sys
from typing import Any

import uvicorn

from servers.gateway.request import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer by path."""
    asked: dict[str, Any] = json.loads((await receive()).get("body") or b"{}")
    path, name = scope["path"], asked.get("lora_name", "")
    if path == "/openapi.json":
        await _answer(send, {"paths": {"/v1/completions": {}}})
    elif path == "/v1/models":
        entries = [{"id": name, "root": path, "parent": MODEL} for name, path in loaded.items()]
        await _answer(send, {"data": [{"id": MODEL, "max_model_len": 99}, *entries]})
    elif path == "/v1/load_lora_adapter" and (name in loaded or name.startswith("bad")):
        await _answer(send, {"error": {"message": f"cannot load {name}"}}, 400)
    elif path == "/v1/load_lora_adapter":
        loaded[name] = asked["lora_path"]
        await _answer(send, {})
    elif path == "/v1/unload_lora_adapter":
        del loaded[name]
        await _answer(send, {})
    elif asked.get("model", MODEL) not in (MODEL, *loaded):
        await _answer(send, {"error": {"message": "no such model", "code": 404}}, 404)
    else:
        await _answer(send, {"usage": {"completion_tokens": 1}, "model": asked.get("model"), "pid": os.getpid()})


async def _answer(send: Send, document: object, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    SOCKET, MODEL, *modules = sys.argv[1:]
    loaded = dict(module.split("=", 1) for module in modules)
    uvicorn.run(app, uds=SOCKET, log_level="warning")
