"""LitServe's own server, unmodified, for a LitAPI that the worker host cannot run.

What is added is process control: on SIGTERM the requests in flight are answered and no process is left; LitServe alone
leaves its workers. It relies on one private name, `_MCP_AVAILABLE`, and on the names of LitServe's processes.
"""

import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import litserve.server
from litserve.callbacks import Callback

from servers.engines.litserve.api import (
    ApiSpec,
    construct_extras,
    fail,
    first_paragraph,
    without_none,
    write_card,
    write_equality,
)
from servers.engines.litserve.host.devices import device_names
from servers.engines.litserve.openapi import describe


def serve(api: Any, spec: ApiSpec, reason: str | None = None) -> int:
    """Serve on a Unix socket until SIGTERM; returns the exit status when there is nothing to serve.

    `reason` is why the host does not serve it. Raises UserError, and whatever LitServe finds wrong with the API.
    """
    # Children that are forked inherit the handler; it does nothing there. That keeps LitServe's queues alive meanwhile.
    signal.signal(signal.SIGTERM, partial(_end, os.getpid(), spec.uds))
    without_mcp()
    if api.max_batch_size > 1 and api.batch_timeout == 0:
        sys.stderr.write(
            f"warning: {spec.name}: with batches and a batch_timeout of 0 LitServe's idle worker keeps a whole core "
            "busy; 0.005 costs an eighth of that\n"
        )
    # LitServe's "auto" takes a GPU only where this process has imported torch; the host's counts `uses_torch` as well.
    devices = device_names(spec.accelerator, spec.devices, bool(getattr(api, "uses_torch", False)))
    callbacks, loggers = construct_extras(spec)
    server = litserve.LitServer(
        api,
        accelerator=devices[0].partition(":")[0],
        callbacks=[_OutliveSigterm(), _TellEquality(spec), *callbacks],
        loggers=loggers or None,
        **without_none(devices=spec.devices, workers_per_device=spec.workers_per_device, timeout=spec.timeout),
    )
    describe(server.app, api)
    write_card(spec, api, "litserve", reason)
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
        return fail(f"api {spec.api!r}: {first_paragraph(error)}")
    return 0


def without_mcp() -> None:
    """Let LitServe do without MCP: vLLM brings a release of mcp with which its run() dies of a NameError."""
    litserve.server._MCP_AVAILABLE = False


class _OutliveSigterm(Callback):  # type: ignore[misc] # LitServe ships no types
    """The process group gets SIGTERM, and a worker must still answer what is in flight."""

    def on_before_setup(self, *_: Any, **__: Any) -> None:
        """In a worker, before all else."""
        # Not SIG_IGN, which every program that a plug-in starts would inherit.
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)


class _TellEquality(Callback):  # type: ignore[misc] # LitServe ships no types
    """What the host's workers do themselves."""

    def __init__(self, spec: ApiSpec) -> None:
        self._spec = spec

    def on_after_setup(self, lit_api: Any, **_: Any) -> None:
        """In a worker, before it is ready."""
        write_equality(self._spec, lit_api)


def _end(main_pid: int, uds: str, _number: int, _frame: FrameType | None) -> None:
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
