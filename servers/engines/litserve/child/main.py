"""The process that serves one model through LitServe: `python -m servers.engines.litserve.child.main SPEC.json`.

It loads the LitAPI, says in a file (the card) what it offers, and runs a LitServer on a Unix socket. It
exists to keep plug-ins out of Litport's own process, and to end well, which LitServe alone does not. It never retries:
a mistake is one line on stderr and exit status 3.
"""

import inspect
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import litserve.server
from litserve.callbacks import Callback
from litserve.connector import check_cuda_with_nvidia_smi

from configs.errors import UserError
from servers.apis import registry
from servers.engines.litserve.child.cancel import HttpCancel, Marks, Watch
from servers.engines.litserve.child.context import Context, ContextTransport, HttpContext
from servers.engines.litserve.child.in_flight import Hand
from servers.engines.litserve.child.openapi import describe
from servers.engines.litserve.child.timing import HttpTiming, TimedQueue, Timing

_EXIT_NOT_LOADED = 3
# Workers send their spans twice a second, and are killed when nobody can ask them any more.
_LAST_SPANS_S = 0.7


@dataclass(frozen=True)
class ChildSpec:
    """What to serve, as the parent wrote it. None means LitServe's own default; times are in seconds."""

    name: str
    api: str
    uds: str
    card: str
    log_level: str
    model_dir: str | None = None
    init: dict[str, Any] | None = None
    accelerator: str | None = None
    devices: int | str | list[int] | None = None
    workers_per_device: int | None = None
    max_batch_size: int | None = None
    batch_timeout: float | None = None
    stream: bool | None = None
    timeout: float | None = None
    num_api_servers: int | None = None
    cancel_grace_s: float = 5.0
    traces: bool = False


class _Server(litserve.LitServer):  # type: ignore[misc] # litserve ships no complete types
    """LitServer with requests on pipes instead of in its manager, and with work that can be cancelled.

    A worker that batches asks its queue a thousand times a second. Each question to a queue in the manager is a call to
    another process, which kept a tenth of a core busy for a model at rest, and costs every request its time.
    """

    def __init__(self, api: Any, marks: Marks, cancel_grace_s: float, traces: bool, **options: Any) -> None:
        self._marks = marks
        self._hand = Hand(marks)
        self._context = Context(traces)
        self._cancel_grace_s = cancel_grace_s
        super().__init__(
            api,
            callbacks=[StayForDrain(), Timing(), self._hand, self._context],
            middlewares=[HttpTiming, (HttpCancel, {"marks": marks}), (HttpContext, {"traces": traces})],
            **options,
        )

    def _init_manager(self, num_api_servers: int) -> Any:
        manager = super()._init_manager(num_api_servers)
        (path,) = self.litapi_request_queues
        self._hand.equip(self.lit_api, len(self._inference_workers_config_for_api(path)))
        self._context.equip(self.lit_api)
        self._transport: Any = ContextTransport(self._transport, self._context)
        self.litapi_request_queues[path] = TimedQueue(
            self._marks, self._hand, self._context, self._transport, self.lit_api.stream
        )
        return manager

    def register_endpoints(self) -> None:
        """Register LitServe's endpoints, and document what its signatures cannot tell of them."""
        super().register_endpoints()
        describe(self.app, self.lit_api)

    def _start_worker_monitoring(self, manager: Any, uvicorn_workers: Any) -> None:
        super()._start_worker_monitoring(manager, uvicorn_workers)
        Watch(self._marks, self._hand.slots, self.inference_workers, self._cancel_grace_s, self.timeout).start()


class StayForDrain(Callback):  # type: ignore[misc] # litserve ships no complete types
    """In a worker: outlive SIGTERM. The whole process group gets it, and the request in hand must still be answered."""

    def on_before_setup(self, *_: Any, **__: Any) -> None:
        """Called by LitServe in the worker, first of all."""
        # Not SIG_IGN, which every program that a plug-in starts would inherit.
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)


def main(spec_file: str) -> int:
    """Serve until SIGTERM; returns the exit status when there is nothing to serve."""
    spec = ChildSpec(**json.loads(Path(spec_file).read_text()))
    # Children that are forked inherit the handler; it does nothing there. That keeps LitServe's queues alive meanwhile.
    signal.signal(signal.SIGTERM, _Ending(os.getpid(), spec.uds, _LAST_SPANS_S if spec.traces else 0.0))
    try:
        api = construct(spec)
        server = _server(api, spec)
    except UserError as error:
        return _fail(str(error))
    except Exception as error:  # whatever a plug-in's module or constructor raises
        traceback.print_exc()
        return _fail(f"api {spec.api!r}: {type(error).__name__}: {_in_one_line(error)}")
    _write_card(Path(spec.card), api)
    Path(spec.uds).unlink(missing_ok=True)
    try:
        server.run(
            host="127.0.0.1",  # not used, since there is a socket; LitServe's default would be every interface
            uds=spec.uds,
            log_level=spec.log_level,
            generate_client_file=False,
            access_log=False,  # the front door logs requests
            ws="none",
            **_given(num_api_servers=spec.num_api_servers),
        )
    except RuntimeError as error:  # setup failed in a worker, which has written its traceback
        _end_children()
        return _fail(f"api {spec.api!r}: {_in_one_line(error)}")
    return 0


def construct(spec: ChildSpec) -> Any:
    """The LitAPI, with the settings that its constructor names as arguments and the others set on the object."""
    found = registry.load(spec.api)
    settings = _given(max_batch_size=spec.max_batch_size, batch_timeout=spec.batch_timeout, stream=spec.stream)
    names = inspect.signature(found.__init__).parameters
    arguments = {name: value for name, value in settings.items() if name in names}
    api = found(**_given(model_dir=spec.model_dir), **{**(spec.init or {}), **arguments})
    if api.spec is not None and spec.stream not in (None, api.spec.stream):
        raise UserError(f"api {spec.api!r}: {type(api.spec).__name__} decides about streaming; remove `stream`")
    for name in settings.keys() - arguments.keys():
        # LitServe reads these, and makes its loop from them, only once the server is built.
        setattr(api, name, settings[name])
    if api.max_batch_size > 1 and api.batch_timeout == 0:
        sys.stderr.write(
            f"warning: {spec.name}: with batches and a batch_timeout of 0 LitServe's idle worker keeps a whole core "
            "busy; 0.005 costs an eighth of that\n"
        )
    return api


def _server(api: Any, spec: ChildSpec) -> litserve.LitServer:
    # vLLM brings a release of mcp that this LitServe cannot use: run() would die with a NameError.
    litserve.server._MCP_AVAILABLE = False
    marks = Marks(Path(spec.uds).with_suffix(".cancelled"))
    marks.clear()
    return _Server(
        api,
        marks,
        spec.cancel_grace_s,
        spec.traces,
        **_given(
            accelerator=_accelerator(api, spec.accelerator),
            devices=spec.devices,
            workers_per_device=spec.workers_per_device,
            timeout=spec.timeout,
        ),
    )


def _accelerator(api: Any, chosen: str | None) -> str | None:
    """What LitServe's "auto" means, told to it, because it looks at whether this process has imported torch.

    An API that imports torch in setup(), where it belongs, would get the CPU beside an idle GPU; and without a GPU
    LitServe imports torch here only to look for Apple's.
    """
    if chosen not in (None, "auto") or sys.platform == "darwin":
        return chosen
    if check_cuda_with_nvidia_smi() == 0:
        return "cpu"
    return "cuda" if getattr(api, "uses_torch", False) else chosen


def _write_card(file: Path, api: Any) -> None:
    card = {
        "api_path": api.api_path,
        "stream": api.stream,
        "max_batch_size": api.max_batch_size,
        "is_async": bool(api.enable_async),
        "spec": type(api.spec).__name__ if api.spec else None,
        "input": getattr(api, "input_description", None),
        "output": getattr(api, "output_description", None),
        "example": getattr(api, "example_request", None),
    }
    part = file.with_suffix(".part")
    part.write_text(json.dumps(card))
    part.replace(file)


class _Ending:
    """SIGTERM in the main process: API servers answer what they have, then everything ends at once.

    Alone, the main process would die of SIGTERM and leave all others; with the group, workers and queues would die
    under the requests that they are answering.
    """

    def __init__(self, main_pid: int, uds: str, linger_s: float) -> None:
        self._main_pid = main_pid
        self._uds = uds
        self._linger_s = linger_s

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._main_pid:
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children = multiprocessing.active_children()
        api_servers = [child for child in children if child.name.startswith("LitServer-")]
        # uvicorn closes its socket, finishes its requests within a deadline of its own, and ends. Told again and again,
        # because one that has just been forked listens to SIGTERM only a moment later.
        while alive := [process for process in api_servers if process.is_alive()]:
            for process in alive:
                process.terminate()
            alive[0].join(0.5)
        time.sleep(self._linger_s)
        _end_children()
        Path(self._uds).unlink(missing_ok=True)
        sys.stdout.flush()
        os._exit(0)  # an ordinary exit would wait for LitServe's threads and queues, whose processes are gone


def _end_children() -> None:
    # Without this, leaving the main process waits for every worker that is still loading or serving.
    for process in multiprocessing.active_children():
        process.kill()
    for process in multiprocessing.active_children():
        process.join()


def _given(**options: Any) -> dict[str, Any]:
    """The options that are set; None is LitServe's own default and is not passed on."""
    return {name: value for name, value in options.items() if value is not None}


def _in_one_line(error: BaseException) -> str:
    # LitServe explains over many lines; its first paragraph says what is wrong.
    return " ".join(str(error).strip().partition("\n\n")[0].split())


def _fail(message: str) -> int:
    sys.stderr.write(f"litserve_main: error: {message}\n")
    return _EXIT_NOT_LOADED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
