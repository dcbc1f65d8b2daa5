"""The process that serves one model through LitServe: `python -m servers.engines.litserve.child.main SPEC.json`.

It loads the LitAPI, describes it in a file (the card), and runs a LitServer on a Unix socket. Plug-ins run here, and
not in Litport's own process. On SIGTERM it answers the requests in flight and leaves no process behind; LitServe alone
leaves its workers. A user's mistake is one line on stderr and exit status 3.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import litserve.server
from litserve.connector import check_cuda_with_nvidia_smi

from configs.errors import UserError
from servers.engines.litserve.api import ApiSpec, construct_api, first_paragraph, without_none, write_card
from servers.engines.litserve.child.cancellations import Cancellations, Watch
from servers.engines.litserve.child.exchange import ExchangeMiddleware
from servers.engines.litserve.child.in_flight import InFlight
from servers.engines.litserve.child.openapi import describe
from servers.engines.litserve.child.timing import Timing
from servers.engines.litserve.child.work import Listener
from servers.engines.litserve.child.worker_state import AnswerTransport, RequestQueue, WorkerState

_EXIT_NOT_LOADED = 3
# Workers send their spans twice a second, and are killed once the API servers have ended.
_LAST_SPANS_S = 0.7


@dataclass(frozen=True, kw_only=True)
class ChildSpec(ApiSpec):
    """What to serve, and how LitServe serves it."""

    log_level: str
    num_api_servers: int | None = None
    cancel_grace_s: float = 5.0


class _Server(litserve.LitServer):  # type: ignore[misc] # LitServe ships no types
    """LitServer with requests on pipes instead of in its manager, and with work that can be cancelled."""

    def __init__(self, api: Any, spec: ChildSpec) -> None:
        self._cancel_grace_s = spec.cancel_grace_s
        self._cancellations = Cancellations(Path(spec.uds).with_suffix(".cancelled"))
        self._cancellations.clear()
        self._in_flight = InFlight(self._cancellations)
        listeners: list[Listener] = [Timing(), self._in_flight]
        if spec.traces:
            from servers.engines.litserve.child.spans import WorkerSpans

            listeners.append(WorkerSpans())
        self._worker_state = WorkerState(listeners)
        super().__init__(
            api,
            callbacks=[self._worker_state],
            middlewares=[(ExchangeMiddleware, {"cancellations": self._cancellations, "traces": spec.traces})],
            **without_none(
                accelerator=_accelerator(api, spec.accelerator),
                devices=spec.devices,
                workers_per_device=spec.workers_per_device,
                timeout=spec.timeout,
            ),
        )

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = super()._init_manager(num_api_servers)
        (path,) = self.litapi_request_queues
        self._in_flight.allocate(self.lit_api, len(self._inference_workers_config_for_api(path)))
        self._transport: Any = AnswerTransport(self._transport, self._worker_state)
        self.litapi_request_queues[path] = RequestQueue(
            self._worker_state, self._cancellations, self._transport, self.lit_api.stream
        )
        return manager

    def register_endpoints(self) -> None:
        """Register LitServe's endpoints, and document what their signatures lack."""
        super().register_endpoints()
        describe(self.app, self.lit_api)

    def _start_worker_monitoring(self, manager: Any, uvicorn_workers: Any) -> None:
        super()._start_worker_monitoring(manager, uvicorn_workers)
        slots, workers = self._in_flight.slots, self.inference_workers
        Watch(self._cancellations, slots, workers, self._cancel_grace_s, self.timeout).start()


def main(spec_file: str) -> int:
    """Serve until SIGTERM; returns the exit status when there is nothing to serve."""
    spec = ChildSpec(**json.loads(Path(spec_file).read_text()))
    linger_s = _LAST_SPANS_S if spec.traces else 0.0
    # Children that are forked inherit the handler; it does nothing there. That keeps LitServe's queues alive meanwhile.
    signal.signal(signal.SIGTERM, partial(_end, os.getpid(), spec.uds, linger_s))
    # vLLM brings a release of mcp that this LitServe cannot use: run() would die with a NameError.
    litserve.server._MCP_AVAILABLE = False
    try:
        api = construct(spec)
        server = _Server(api, spec)
    except UserError as error:
        return _fail(str(error))
    except Exception as error:  # whatever a plug-in's module or constructor raises
        traceback.print_exc()
        return _fail(f"api {spec.api!r}: {type(error).__name__}: {first_paragraph(error)}")
    write_card(Path(spec.card), _card(api))
    Path(spec.uds).unlink(missing_ok=True)
    try:
        server.run(
            host="127.0.0.1",  # not used, since there is a socket; LitServe's default would be every interface
            uds=spec.uds,
            log_level=spec.log_level,
            generate_client_file=False,
            access_log=False,  # the front door logs requests
            ws="none",
            **without_none(num_api_servers=spec.num_api_servers),
        )
    except RuntimeError as error:  # setup failed in a worker, which has written its traceback
        _end_children()
        return _fail(f"api {spec.api!r}: {first_paragraph(error)}")
    return 0


def construct(spec: ChildSpec) -> Any:
    """The LitAPI; warns where LitServe would keep a core busy with it. Raises as `construct_api` does."""
    api = construct_api(spec)
    if api.max_batch_size > 1 and api.batch_timeout == 0:
        sys.stderr.write(
            f"warning: {spec.name}: with batches and a batch_timeout of 0 LitServe's idle worker keeps a whole core "
            "busy; 0.005 costs an eighth of that\n"
        )
    return api


def _accelerator(api: Any, setting: str | None) -> str | None:
    """What LitServe's "auto" means, which LitServe reads from whether this process has imported torch.

    An API that imports torch in setup(), where it belongs, would get the CPU beside an idle GPU; and without a GPU
    LitServe imports torch here only to look for Apple's.
    """
    if setting not in (None, "auto") or sys.platform == "darwin":
        return setting
    if check_cuda_with_nvidia_smi() == 0:
        return "cpu"
    return "cuda" if getattr(api, "uses_torch", False) else setting


def _card(api: Any) -> dict[str, Any]:
    return {
        "api_path": api.api_path,
        "stream": api.stream,
        "max_batch_size": api.max_batch_size,
        "is_async": bool(api.enable_async),
        "spec": type(api.spec).__name__ if api.spec else None,
        "input": getattr(api, "input_description", None),
        "output": getattr(api, "output_description", None),
        "example": getattr(api, "example_request", None),
    }


def _end(main_pid: int, uds: str, linger_s: float, _number: int, _frame: FrameType | None) -> None:
    """SIGTERM in the main process: API servers answer what they have, then everything ends at once.

    Without this, the main process alone would die of SIGTERM and leave the others; and if the whole group got it,
    workers and queues would die under the requests that they are answering.
    """
    if os.getpid() != main_pid:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    children = multiprocessing.active_children()
    api_servers = [child for child in children if child.name.startswith("LitServer-")]
    # uvicorn closes its socket, finishes its requests within a deadline of its own, and ends. The signal is repeated,
    # because a process that has just been forked listens to SIGTERM only a moment later.
    while alive := [process for process in api_servers if process.is_alive()]:
        for process in alive:
            process.terminate()
        alive[0].join(0.5)
    time.sleep(linger_s)
    _end_children()
    Path(uds).unlink(missing_ok=True)
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit would wait for LitServe's threads and queues, whose processes are gone


def _end_children() -> None:
    # Without this, leaving the main process waits for every worker that is still loading or serving.
    for process in multiprocessing.active_children():
        process.kill()
    for process in multiprocessing.active_children():
        process.join()


def _fail(message: str) -> int:
    sys.stderr.write(f"litserve_main: error: {message}\n")
    return _EXIT_NOT_LOADED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
