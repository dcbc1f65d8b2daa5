"""The process that keeps a model's workers: `python -m servers.engines.litserve.host.main SPEC.json`.

It loads the LitAPI, writes in a file (the card) what it offers, starts a worker for each device slot and replaces one
that ends. It touches no request: the front door speaks to the workers. A mistake is one line on stderr and exit status
3; so is a worker that does not come through its setup.
"""

import json
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from configs.errors import UserError
from servers.engines.litserve.api import first_paragraph, write_card
from servers.engines.litserve.child.openapi import describe
from servers.engines.litserve.host.devices import device_names
from servers.engines.litserve.host.load import HostSpec, construct
from servers.engines.litserve.host.route import document_app
from servers.engines.litserve.host.worker import ANSWERED, READY, start_worker
from servers.telemetry import memory

_EXIT_NOT_LOADED = 3
_BACKLOG = 16
# How often a setup is held against its limit.
_CHECK_INTERVAL_S = 1.0
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
        self.process: SpawnProcess | None = None
        self._deaths = 0
        self._start_s = 0.0
        self._memory_kills: int | None = None
        self._reports: connection.Connection | None = None

    def start(self, api: Any, spec: HostSpec) -> None:
        """Start a process here."""
        self.is_ready = False
        if self._reports is not None:
            self._reports.close()
        self._reports, worker_end = _spawn.Pipe(duplex=False)
        place = (self.number, self.device, self.listener, worker_end)
        try:
            self.process = _spawn.Process(target=start_worker, args=(api, spec, place), name="worker")
            self.process.start()
        except (TypeError, AttributeError, ValueError, pickle.PicklingError):
            self.process = _spawn.Process(target=start_worker, args=(None, spec, place), name="worker")
            self.process.start()
        worker_end.close()
        self._start_s = time.monotonic()
        self._memory_kills = memory.kills()

    def is_overdue(self, start_timeout_s: float) -> bool:
        """Whether its setup takes too long."""
        return self.process is not None and not self.is_ready and time.monotonic() - self._start_s > start_timeout_s

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

    def __init__(self, api: Any, spec: HostSpec) -> None:
        devices = device_names(spec.accelerator, spec.devices, bool(getattr(api, "uses_torch", False)))
        if devices == ["cpu"] and isinstance(spec.devices, int | list) and spec.devices not in (1, [0]):
            sys.stderr.write(f"warning: {spec.name}: devices={spec.devices} has no effect on a CPU\n")
        places = devices * (spec.workers_per_device or 1)
        self.slots = [Slot(number, device, Path(f"{spec.uds}.{number}")) for number, device in enumerate(places)]
        self._api = api
        self._spec = spec
        self._is_ending = False

    def run(self) -> int:
        """Keep the workers until SIGTERM; returns the exit status."""
        signal.signal(signal.SIGTERM, self._end)
        for slot in self.slots:
            self._start(slot)
        while waits := [wait for slot in self.slots for wait in slot.waits()]:
            is_complete = all(slot.is_ready for slot in self.slots)
            connection.wait(waits, None if is_complete else _CHECK_INTERVAL_S)
            for slot in self.slots:
                slot.read_reports()
                if slot.is_overdue(self._spec.start_timeout_s):
                    self._kill()
                    return _fail(f"worker {slot.number} was not set up within {self._spec.start_timeout_s:g} s")
                problem = slot.exit_cause()
                if problem is None or self._is_ending:
                    continue
                if not slot.is_ready:
                    self._kill()
                    return _fail(f"api {self._spec.api!r}: {problem} in setup()")
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
            slot.start(self._api, self._spec)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._is_ending = True
        for slot in self.slots:
            if slot.process is not None and slot.process.pid is not None:
                # One that is being set up has nothing to finish.
                os.kill(slot.process.pid, signal.SIGTERM if slot.is_ready else signal.SIGKILL)

    def _kill(self) -> None:
        for slot in self.slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.join()
            slot.path.unlink(missing_ok=True)


def main(spec_file: str) -> int:
    """Serve until SIGTERM; returns the exit status."""
    spec = HostSpec(**json.loads(Path(spec_file).read_text()))
    try:
        api = construct(spec)
        host = Host(api, spec)
        write_card(Path(spec.card), _card(api, host))
    except UserError as error:
        return _fail(str(error))
    except Exception as error:  # whatever a plug-in's module or constructor raises
        traceback.print_exc()
        return _fail(f"api {spec.api!r}: {type(error).__name__}: {first_paragraph(error)}")
    return host.run()


def _card(api: Any, host: Host) -> dict[str, Any]:
    app = document_app(api)
    describe(app, api)
    return {
        "api_path": api.api_path,
        "max_batch_size": api.max_batch_size,
        "batch_timeout_s": api.batch_timeout or None,
        "is_async": bool(api.enable_async),
        "example": getattr(api, "example_request", None),
        "openapi": app.openapi(),
        "sockets": [str(slot.path) for slot in host.slots],
    }


def _fail(message: str) -> int:
    sys.stderr.write(f"worker_host: error: {message}\n")
    return _EXIT_NOT_LOADED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
