"""Plain LitServe around a LitAPI: `python -m benchmarks.rungs.server.litserve SPEC.json`.

The API, its batches and workers are those of the recipe. Nothing that Litport adds around LitServe is there, except the
counters of where the time goes, through LitServe's own hooks.
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import litserve.server

from servers.engines.litserve.child.main import ChildSpec, construct
from servers.engines.litserve.child.timing import HttpTiming, Timing


def main(spec_file: str) -> None:
    """Serve until ended."""
    document: dict[str, Any] = json.loads(Path(spec_file).read_text())
    port = document.pop("port")
    spec = ChildSpec(**document)
    options = {
        "accelerator": spec.accelerator,
        "devices": spec.devices,
        "workers_per_device": spec.workers_per_device,
        "timeout": False,
    }
    litserve.server._MCP_AVAILABLE = False  # vLLM brings a release of mcp with which LitServe does not start
    server = litserve.LitServer(
        construct(spec),
        callbacks=[_PlainTiming()],
        middlewares=[HttpTiming],
        **{name: value for name, value in options.items() if value is not None},
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)


class _PlainTiming(Timing):
    """Timing where the queue does not say how many requests a batch has: `batch` is asked instead."""

    def on_after_setup(self, lit_api: Any, **_: Any) -> None:
        """In a worker: listen to the batches."""
        if lit_api.max_batch_size > 1:
            original = lit_api.batch

            @functools.wraps(original)
            def batch(inputs: Any, *args: Any, **kwargs: Any) -> Any:
                self._size = len(inputs)
                self._count("decode")
                return original(inputs, *args, **kwargs)

            lit_api.batch = batch

    def on_after_decode_request(self, *_: Any, lit_api: Any, **__: Any) -> None:
        """Counted by `batch` where there is one."""
        if lit_api.max_batch_size == 1:
            self._count("decode")


if __name__ == "__main__":
    main(sys.argv[1])
