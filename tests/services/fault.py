"""A signal to one process of a model while requests are in flight, and what requests and models see of it."""

import concurrent.futures
import os
import signal
import threading
import time
from collections.abc import Callable

import httpx

from servers.processes.group import ProcessGroup
from tests.conftest import Platform
from tests.services.polling import wait_until

BACK_S = 180
"""Longest until a model is back, on a machine that has other work."""


class Fault:
    """A signal to one process of a model while requests are in flight, and what was seen of it."""

    def __init__(
        self,
        platform: Platform,
        model: str,
        pid: int,
        number: signal.Signals,
        other: Callable[[], httpx.Response],
    ) -> None:
        self._platform = platform
        self._model = model
        self._pid = pid
        self._number = number
        self._other = other
        self._restarts = platform.status()[model]["restarts"]
        self._ended_s: list[float] = []
        self._unready_s: float | None = None
        self._back_s: float | None = None
        self._others = 0

    def strike(self, requests: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
        """Send the requests, the signal a second later, and return the answers; the other model is asked meanwhile."""
        at_s = 0.0

        def timed(request: Callable[[], httpx.Response]) -> httpx.Response:
            answer = request()
            self._ended_s.append(time.monotonic() - at_s)
            return answer

        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                self._other().raise_for_status()
                self._others += 1
                if self._unready_s is None and self._platform.http.get("/ready", timeout=30).status_code == 503:
                    self._unready_s = time.monotonic() - at_s
                time.sleep(0.02)

        with concurrent.futures.ThreadPoolExecutor(len(requests) + 1) as threads:
            asked = [threads.submit(timed, request) for request in requests]
            time.sleep(1)
            at_s = time.monotonic()
            os.kill(self._pid, self._number)
            watching = threads.submit(watch)
            try:
                answers = [answer.result() for answer in asked]
                wait_until(lambda: self._unready_s is not None, 5)
            finally:
                done.set()
            watching.result()
        return answers

    def hold(self, bound_s: float) -> None:
        """All requests ended, and readiness turned, within the bound (a stop is seen by looking now and then)."""
        assert max(self._ended_s) < bound_s
        assert self._unready_s is not None
        assert self._unready_s < bound_s

    def until_back(self) -> None:
        """Ask the other model until this one is up again; say what was measured."""
        begin_s = time.monotonic()
        while True:
            self._other().raise_for_status()
            self._others += 1
            status = self._platform.status()[self._model]
            if status["state"] == "ready" and status["restarts"] != self._restarts:
                break
            assert time.monotonic() < begin_s + BACK_S, status
            time.sleep(0.1)
        print(
            f"requests ended {max(self._ended_s):.2f} s after the signal, /ready turned after {self._unready_s:.2f} s, "
            f"the model was back {time.monotonic() - begin_s:.1f} s later; "
            f"{self._others} requests to another model, 0 failed"
        )


def wait_until_gone(group_id: int, timeout_s: float) -> None:
    wait_until(
        lambda: not ProcessGroup(group_id).members(),
        timeout_s,
        problem=lambda: f"orphaned: {ProcessGroup(group_id).members()}",
    )
