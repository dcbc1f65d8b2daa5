"""The worker host's main process, which keeps a model's workers.

It writes in a file (the card) what the LitAPI offers, starts a worker for each device slot and replaces one that ends.
It touches no request: the front door speaks to the workers. A worker that does not come through its setup is one line
on stderr and exit status 3.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from litserve.callbacks import CallbackRunner

from servers.engines.litserve.api import EXIT_NOT_LOADED, ApiSpec, construct_extras, write_card
from servers.engines.litserve.host.devices import device_names
from servers.engines.litserve.host.log_entries import LogEntries
from servers.engines.litserve.host.route import document_app
from servers.engines.litserve.host.tensors.declaration import declaration_of
from servers.engines.litserve.host.worker import ANSWERED, READY, REFUSED, Extras, start_worker
from servers.engines.litserve.openapi import describe
from servers.processes.proc import stopped_pids
from servers.telemetry import memory

_BACKLOG = 16
# How often a setup, or a stop, is held against its limit.
_CHECK_INTERVAL_S = 1.0
# A worker may be stopped (SIGSTOP) for so long, as by a debugger, before it is replaced.
_MOST_STOPPED_S = 4.0
_spawn = multiprocessing.get_context("spawn")


class Slot:
    """A place for a worker: its number, device and listening socket, and the process that is there now."""

    def __init__(self, number: int, device: str, path: Path) -> None:
        self.number = number
        self.device = device
        self.path = path
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(_BACKLOG)
        self.is_ready = False
        self.refusal: str | None = None
        self.process: SpawnProcess | None = None
        self._deaths = 0
        self._start_s = 0.0
        self._memory_kills: int | None = None
        self._stopped_s: float | None = None
        self._reports: connection.Connection | None = None

    def start(self, api: Any, spec: ApiSpec, extras: Extras) -> None:
        """Start a process here."""
        self.is_ready = False
        if self._reports is not None:
            self._reports.close()
        self._reports, worker_end = _spawn.Pipe(duplex=False)
        place = (self.number, self.device, self.listener, worker_end)
        try:
            self.process = _spawn.Process(target=start_worker, args=(api, spec, place, extras), name="worker")
            self.process.start()
        except (TypeError, AttributeError, ValueError, pickle.PicklingError):
            self.process = _spawn.Process(target=start_worker, args=(None, spec, place, extras), name="worker")
            self.process.start()
        worker_end.close()
        self._start_s = time.monotonic()
        self._memory_kills = memory.kills()

    def is_overdue(self, start_timeout_s: float) -> bool:
        """Whether its setup takes too long."""
        return self.process is not None and not self.is_ready and time.monotonic() - self._start_s > start_timeout_s

    def end(self) -> None:
        """Let the worker answer what it has; one that is being set up has nothing to answer."""
        if self.process is not None and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGTERM if self.is_ready else signal.SIGKILL)

    def is_stopped(self) -> bool:
        """Whether its process is stopped by a signal; one that is for too long is killed."""
        if self.process is None or self.process.pid is None or not stopped_pids([self.process.pid]):
            self._stopped_s = None
            return False
        self._stopped_s = self._stopped_s or time.monotonic()
        if time.monotonic() - self._stopped_s > _MOST_STOPPED_S:
            sys.stderr.write(f"worker_host: error: worker {self.number} was stopped by a signal\n")
            self.process.kill()
        return True

    def waits(self) -> list[Any]:
        """What becomes ready when something happens here."""
        process = [self.process.sentinel] if self.process is not None else []
        return process if self._reports is None else [*process, self._reports]

    def read_reports(self) -> None:
        """Learn whether the worker is set up, and whether it has answered."""
        while self._reports is not None and self._reports.poll():
            try:
                report = self._reports.recv_bytes()
            except (EOFError, OSError):
                self._reports.close()
                self._reports = None
                return
            if report == READY:
                self.is_ready = True
            elif report == ANSWERED:
                self._deaths = 0
            elif report.startswith(REFUSED):
                self.refusal = report.removeprefix(REFUSED).decode()

    def count_death(self) -> int:
        """How many workers have ended here in a row without an answer between them, this one counted."""
        self._deaths += 1
        return self._deaths

    def exit_cause(self) -> str | None:
        """How its process ended, if it has."""
        if self.process is None or self.process.exitcode is None:
            return None
        self.process.join()
        status, pid = self.process.exitcode, self.process.pid
        self.process = None
        if status >= 0:
            return f"worker {self.number} (process {pid}) ended with status {status}"
        # A kernel that does not count may have done it.
        is_short = memory.kills() is None or memory.kills() != self._memory_kills
        hint = " (out of memory?)" if -status == signal.SIGKILL and is_short else ""
        return f"worker {self.number} (process {pid}) was killed by {signal.Signals(-status).name}{hint}"


class Host:
    """The workers of one model."""

    def __init__(self, api: Any, spec: ApiSpec, extras: Extras) -> None:
        devices = device_names(spec.accelerator, spec.devices, bool(getattr(api, "uses_torch", False)))
        if devices == ["cpu"] and isinstance(spec.devices, int | list) and spec.devices not in (1, [0]):
            sys.stderr.write(f"warning: {spec.name}: devices={spec.devices} has no effect on a CPU\n")
        places = devices * (spec.workers_per_device or 1)
        self.slots = [Slot(number, device, Path(f"{spec.uds}.{number}")) for number, device in enumerate(places)]
        self._api = api
        self._spec = spec
        self._extras = extras
        self._is_ending = False
        signal.signal(signal.SIGTERM, self._end)

    def run(self) -> int:
        """Keep the workers until SIGTERM; returns the exit status."""
        for slot in self.slots:
            self._start(slot)
        # The kernel says when a child is stopped, so that nobody looks while nothing happens.
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: os.write(writer, b"."))
        while waits := [wait for slot in self.slots for wait in slot.waits()]:
            limited = [slot for slot in self.slots if not slot.is_ready or slot.is_stopped()]
            if reader in connection.wait([*waits, reader], _CHECK_INTERVAL_S if limited else None):
                os.read(reader, 1024)
            for slot in self.slots:
                slot.read_reports()
                if slot.is_overdue(self._spec.start_timeout_s):
                    self._kill()
                    return _fail(f"worker {slot.number} was not set up within {self._spec.start_timeout_s:g} s")
                problem = slot.exit_cause()
                if problem is None or self._is_ending:
                    continue
                if not slot.is_ready:
                    slot.read_reports()  # what it has sent since, before it ended
                    self._kill()
                    return _fail(f"api {self._spec.api!r}: {slot.refusal or f'{problem} in setup()'}")
                if slot.count_death() > self._spec.max_restarts:
                    self._kill()
                    return _fail(f"{problem}, again after {self._spec.max_restarts} restarts without an answer")
                sys.stderr.write(f"worker_host: error: {problem}; it is replaced\n")
                sys.stderr.flush()
                self._start(slot)
        for slot in self.slots:
            slot.path.unlink(missing_ok=True)
        return 0

    def _start(self, slot: Slot) -> None:
        if not self._is_ending:
            slot.start(self._api, self._spec, self._extras)
        if self._is_ending:  # the signal may have come meanwhile
            slot.end()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_ending = True
        for slot in self.slots:
            slot.end()

    def _kill(self) -> None:
        for slot in self.slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.join()
            slot.path.unlink(missing_ok=True)


def serve(api: Any, spec: ApiSpec) -> int:
    """Serve until SIGTERM; returns the exit status. Raises UserError, and what FastAPI finds wrong with the API."""
    declaration = declaration_of(api, spec.api)
    callbacks, loggers = construct_extras(spec)
    entries = LogEntries(loggers, _spawn) if loggers else None
    host = Host(api, spec, (callbacks, None if entries is None else entries.queue))
    app = document_app(api)
    describe(app, api)
    tensors = None if declaration is None else declaration.document()
    sockets = [str(slot.path) for slot in host.slots]
    write_card(spec, api, "host", openapi=app.openapi(), sockets=sockets, tensors=tensors)
    runner = CallbackRunner(callbacks)
    runner.trigger_event("on_server_start", litserver=None)
    if entries is not None:
        entries.start()
    status = host.run()
    if entries is not None:
        entries.end()
    runner.trigger_event("on_server_end", litserver=None)
    return status


def _fail(message: str) -> int:
    sys.stderr.write(f"worker_host: error: {message}\n")
    return EXIT_NOT_LOADED
