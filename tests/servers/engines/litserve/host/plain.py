"""Plain LitServe with several APIs, each under its case's name: `python plain.py CASES.json SOCKET`."""

import json
import sys
from pathlib import Path
from typing import Any

import litserve as ls
import litserve.server

from servers.apis import registry


def make(case: dict[str, Any]) -> Any:
    api = registry.load(case["api"])(**case.get("init", {}))
    api.api_path = f"/{case['name']}"
    if api.spec is not None:
        api.spec.api_path = api.api_path = f"/{case['name']}"
    for name in ("stream", "max_batch_size", "batch_timeout"):
        if name in case:
            setattr(api, name, case[name])
    return api


if __name__ == "__main__":
    litserve.server._MCP_AVAILABLE = False
    cases = json.loads(Path(sys.argv[1]).read_text())
    server = ls.LitServer([make(case) for case in cases], accelerator="cpu", timeout=20)
    server.run(
        host="127.0.0.1",
        uds=sys.argv[2],
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
