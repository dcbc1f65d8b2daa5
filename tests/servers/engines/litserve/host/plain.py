"""Plain LitServe with several APIs, each under its own path: `python plain.py CASES.json SOCKET`.

Nothing of LitServe is changed but how it starts its workers: as forks, so that each need not import everything anew.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import litserve as ls
import litserve.server

from servers.apis import registry


def make(case: dict[str, Any]) -> Any:
    settings = case["settings"]
    folder = {"model_dir": settings["model_dir"]} if "model_dir" in settings else {}
    api = registry.load(case["api"])(**folder, **settings.get("init", {}))
    api._api_path = case["path"]
    if api.spec is not None:
        api.spec.api_path = case["path"]
    for name in ("stream", "max_batch_size", "batch_timeout"):
        if name in settings:
            setattr(api, name, settings[name])
    return api


if __name__ == "__main__":
    litserve.server._MCP_AVAILABLE = False
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment]
    cases = json.loads(Path(sys.argv[1]).read_text())
    if any("model_dir" in case["settings"] for case in cases):
        import transformers  # noqa: F401 # once, and not in each worker
    server = ls.LitServer([make(case) for case in cases], accelerator="cpu", timeout=20)
    server.run(
        host="127.0.0.1",
        uds=sys.argv[2],
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
