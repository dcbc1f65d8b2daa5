"""Plain LitServe around a LitAPI: `python -m benchmarks.rungs.server.litserve SPEC.json`.

The API, its batches and workers are those of the recipe. Nothing that Litport adds around LitServe is there, except the
counters of where the time goes, through LitServe's own hooks.
"""

import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import litserve
from litserve.callbacks import Callback

from benchmarks.rungs.server import timing
from servers.engines.litserve.api import ApiSpec, construct_api, without_none
from servers.engines.litserve.fallback import without_mcp

_App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
_begin_s: ContextVar[float | None] = ContextVar("begin_s", default=None)


def main(spec_file: str) -> None:
    """Serve until ended."""
    document: dict[str, Any] = json.loads(Path(spec_file).read_text())
    port = document.pop("port")
    spec = ApiSpec(**document)
    without_mcp()
    server = litserve.LitServer(
        construct_api(spec),
        callbacks=[_StepTiming()],
        middlewares=[_HttpTiming],
        timeout=False,
        **without_none(accelerator=spec.accelerator, devices=spec.devices, workers_per_device=spec.workers_per_device),
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)


class _HttpTiming:
    """ASGI middleware: times each POST, and answers `/metrics`."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/metrics":
            await timing.send_page(send)
        elif scope["type"] == "http" and scope["method"] == "POST":
            begin_s = time.monotonic()
            _begin_s.set(begin_s)
            try:
                await self._app(scope, receive, send)
            finally:
                timing.count("http", time.monotonic() - begin_s)
        else:
            await self._app(scope, receive, send)


class _StepTiming(Callback):  # type: ignore[misc] # LitServe ships no types
    """Counts the steps; the size of a batch comes from the API's `batch`, as LitServe's queue does not tell it."""

    def __init__(self) -> None:
        self._size = 0  # of a stream, LitServe tells nothing before `predict`: it is not counted
        self._step_begin_s = 0.0

    def on_request(self, *_: Any, **__: Any) -> None:
        """In the API server: the request goes into the queue."""
        begin_s = _begin_s.get()
        if begin_s is not None:
            timing.count("receive", time.monotonic() - begin_s)

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

    def on_before_decode_request(self, *_: Any, **__: Any) -> None:
        """The batch begins."""
        self._size = 1
        self._step_begin_s = time.monotonic()

    def on_after_decode_request(self, *_: Any, lit_api: Any, **__: Any) -> None:
        """Counted by `batch` where there is one."""
        if lit_api.max_batch_size == 1:
            self._count("decode")

    def on_before_encode_response(self, *_: Any, **__: Any) -> None:
        """Predicted and unbatched."""
        self._count("predict")

    def on_after_encode_response(self, *_: Any, **__: Any) -> None:
        """Encoded."""
        self._count("encode")

    def _count(self, step: str) -> None:
        now_s = time.monotonic()
        timing.count(step, (now_s - self._step_begin_s) * self._size, self._size)
        self._step_begin_s = now_s


if __name__ == "__main__":
    main(sys.argv[1])
