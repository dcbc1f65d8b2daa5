"""A worker: one process that holds one copy of the model and answers the front door on a socket of its own.

The main thread runs the API; the loop, in a second thread, reads, parses and cancels. An async API runs on the loop
itself, in the main thread. At rest both wait for the kernel.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NoReturn, TypeAlias

import uvloop
from litserve.callbacks import CallbackRunner

from configs.errors import UserError
from servers.engines import child_logging
from servers.engines.litserve.api import ApiSpec, write_equality
from servers.engines.litserve.host import wire
from servers.engines.litserve.host.async_loop import AsyncLoop
from servers.engines.litserve.host.hooks import Hooks
from servers.engines.litserve.host.intake import Intake, Service
from servers.engines.litserve.host.interrupt import Execution
from servers.engines.litserve.host.load import construct
from servers.engines.litserve.host.log_entries import Entries
from servers.engines.litserve.host.sync_loop import Inbox, SyncLoop
from servers.engines.litserve.host.tensors.declaration import declaration_of
from servers.engines.litserve.host.tensors.route import TensorRoute
from servers.engines.litserve.host.work import Work

EXIT_NOT_SET_UP = 3
# What a worker reports to the main process: it is set up, and it has answered its first request.
# Or why it refuses to, as a sentence behind the last of these.
READY, ANSWERED, REFUSED = b"ready", b"answered", b"refused:"
_log = logging.getLogger("litport.worker")

_async_work: ContextVar[Work | None] = ContextVar("async_work", default=None)

Place = tuple[int, str, socket.socket, Connection]
"""Number, device, listening socket, and the pipe for `READY` and `ANSWERED`."""
Extras: TypeAlias = "tuple[list[Any], Entries | None]"
"""LitServe's callbacks, and the queue to its loggers."""


def start_worker(api: Any, spec: ApiSpec, place: Place, extras: Extras) -> None:
    """Set the API up and serve it until SIGTERM: the body of the process. An API that did not pickle is made here."""
    number, device, listener, reports = place
    os.environ["LITSERVE_WORKER_ID"] = str(number)
    # Not SIG_IGN, which every program that a plug-in starts would inherit. The whole group gets it at the end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if api is None:
        api = construct(spec)
    callbacks, entries = CallbackRunner(extras[0]) if extras[0] else None, extras[1]
    if entries is not None:
        api.set_logger_queue(entries)
    worker = Worker(api, spec, lambda: reports.send_bytes(ANSWERED), callbacks)
    hooks = worker.hooks
    try:
        hooks.tell("on_before_setup")
        api.setup(device)
    except UserError as problem:
        reports.send_bytes(REFUSED + str(problem).encode())
        _leave_process(EXIT_NOT_SET_UP)
    except Exception:
        _log.exception("setup(%r) failed", device)
        _leave_process(EXIT_NOT_SET_UP)
    api.device = device
    write_equality(spec, api)
    hooks.tell("on_after_setup")
    child_logging.mark_handlers()
    gc.collect()
    gc.freeze()  # a full collection among the objects of the start takes some 20 ms
    reports.send_bytes(READY)
    worker.serve(listener)
    worker.close()
    if entries is not None:
        entries.close()
        entries.join_thread()
    _leave_process(0)


def _leave_process(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads of a plug-in's would keep it


class Worker:
    """The parts of the process, put together. `on_first_answer` is called once, from either thread."""

    def __init__(
        self, api: Any, spec: ApiSpec, on_first_answer: Callable[[], None], callbacks: CallbackRunner | None
    ) -> None:
        self.hooks = Hooks(api, callbacks)
        self._callbacks = callbacks
        self._api = api
        self._spec = spec
        self._on_first_answer = on_first_answer
        self._execution = Execution()
        self._inbox: Inbox = SimpleQueue()
        self._is_async = bool(api.enable_async)
        self._loop: asyncio.AbstractEventLoop = asyncio.new_event_loop() if self._is_async else uvloop.new_event_loop()
        self._intakes: set[Intake] = set()
        self._is_leaving = False
        self._on_close: Callable[[], None] | None = None
        child_logging.install(self._request_ids)

    def serve(self, listener: socket.socket) -> None:
        """Answer requests until SIGTERM, and then those that are here."""
        api, loop, hooks = self._api, self._loop, self.hooks
        deliver = self._deliver_async if self._is_async else self._inbox.put
        self._service = Service(api, loop, self._execution, deliver, self._on_first_answer, self._callbacks)
        if (declaration := declaration_of(api, self._spec.api)) is not None:
            self._service.tensors = TensorRoute(api, declaration, self._spec.name, loop)
        spans = self._make_spans()
        self._async_loop = AsyncLoop(api, hooks, spans) if self._is_async else None  # it wraps the spec
        self._listener = listener
        listener.setblocking(False)
        loop.add_reader(listener, self._accept)
        parent = multiprocessing.parent_process()
        assert parent is not None
        loop.add_reader(parent.sentinel, os._exit, 0)  # nobody is left to end us
        if self._is_async:
            loop.add_signal_handler(signal.SIGTERM, self._leave)
            loop.run_forever()
            return
        self._execution.install()
        signal.signal(signal.SIGTERM, lambda _number, _frame: loop.call_soon_threadsafe(self._leave))
        threading.Thread(target=loop.run_forever, name="intake", daemon=True).start()
        isolates = self._spec.isolate_failures
        SyncLoop(api, hooks, self._execution, self._inbox, spans, isolates_failures=isolates).run()

    def close(self) -> None:
        """Send the spans that are left."""
        if self._on_close is not None:
            self._on_close()

    def _make_spans(self) -> Any:
        if not self._spec.traces:
            return None
        from servers.engines.litserve.host.spans import WorkSpans
        from servers.telemetry import otlp

        # The front door's own warning that the collector is away is enough.
        provider = otlp.provider("worker", logging.INFO)
        self._on_close = partial(otlp.shut_down, provider)
        return WorkSpans(provider)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        intake = Intake(connection, self._service, self._on_intake_close)
        self._intakes.add(intake)
        intake.outlet.send_frame(wire.Hello(wire.VERSION, os.getpid(), self._api.max_batch_size, self._is_async))

    def _leave(self) -> None:
        if self._is_leaving:
            return
        self._is_leaving = True
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for intake in self._intakes:
            intake.leave()
        self._end_if_over()

    def _on_intake_close(self, intake: Intake) -> None:
        self._intakes.discard(intake)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._is_leaving and not self._intakes:
            if self._is_async:
                self._loop.stop()
            else:
                self._inbox.put(None)

    def _deliver_async(self, works: Sequence[Work]) -> None:
        for work in works:
            task = self._loop.create_task(self._work_async(work))
            work.reply.attach(task)

    async def _work_async(self, work: Work) -> None:
        assert self._async_loop is not None
        _async_work.set(work)
        await self._async_loop.work(work)

    def _request_ids(self) -> str:
        work = _async_work.get()
        works = [work] if work is not None else self._execution.works
        return ",".join(work.request_id for work in works if work.request_id)
