"""Kills, and what they may excuse: which process was hit when, and until when its model was not itself.

A model is not itself from the kill until it is ready in a new generation, or, where it lost nothing that it needed,
until it has been seen ready some seconds later. It refuses to excuse anything else: a request that touches no such time
has to be answered.
"""

import os
import random
import signal
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass

import httpx

from servers.processes.group import ProcessGroup
from tests.conftest import Platform
from tests.withstand.processes import role

# By then a death that matters has been noticed.
_NOTICED_S = 5.0
_POLL_S = 0.1
_NEVER = float("inf")


@dataclass(frozen=True)
class Kill:
    """One signal to one process. `restarts` is the model's generation before it; `over_s` is when a stop was undone."""

    at_s: float
    over_s: float
    model: str
    restarts: int
    role: str
    number: signal.Signals


@dataclass(frozen=True)
class _Seen:
    at_s: float
    ready: bool
    restarts: int


class Watch:
    """Asks for the status ten times a second from the moment it is made until `stop`, and remembers every model's."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._seen: dict[str, list[_Seen]] = {}
        self._stopping = threading.Event()
        self.unanswered: list[str] = []
        self.groups: dict[str, int] = {}
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no further."""
        self._stopping.set()
        self._thread.join()

    def restarts(self, model: str) -> int:
        """The model's restarts so far."""
        return self._seen[model][-1].restarts

    @property
    def all_ready(self) -> bool:
        """Whether every model takes traffic."""
        return all(seen[-1].ready for seen in self._seen.values())

    def until_itself(self, kill: Kill) -> float:
        """When the model was itself again; infinity when it never was."""
        seen = self._seen[kill.model]
        first = bisect_left(seen, kill.at_s, key=lambda one: one.at_s)
        again = (
            one.at_s
            for one in seen[first:]
            if one.ready and (one.restarts > kill.restarts or one.at_s >= kill.over_s + _NOTICED_S)
        )
        return next(again, _NEVER)

    def _run(self) -> None:
        while not self._stopping.wait(_POLL_S):
            try:
                self._look()
            except httpx.HTTPError as problem:
                self.unanswered.append(f"{type(problem).__name__}: {problem}")

    def _look(self) -> None:
        asked_s = time.monotonic()
        for name, model in self._platform.status().items():
            restarts, group = model["restarts"], model["group_id"]
            assert isinstance(restarts, int)
            self._seen.setdefault(name, []).append(_Seen(asked_s, model["state"] == "ready", restarts))
            if isinstance(group, int):
                self.groups[name] = group
            else:
                self.groups.pop(name, None)


class Killer:
    """Every `interval_s` seconds one process of one model, any of them, is killed or, now and then, stopped.

    A stopped one is let go on after `stop_for_s`, if it is still there.
    """

    def __init__(
        self, watch: Watch, *, interval_s: float, seed: int, stop_share: float = 0, stop_for_s: float = 30
    ) -> None:
        self._watch = watch
        self._dice = random.Random(seed)
        self._interval_s = interval_s
        self._stop_share = stop_share
        self._stop_for_s = stop_for_s
        self.kills: list[Kill] = []

    def run(self, duration_s: float) -> None:
        """Kill for that long; nothing is left stopped."""
        end_s = time.monotonic() + duration_s
        while (next_s := time.monotonic() + self._interval_s) < end_s:
            self._hit()
            time.sleep(max(0.0, next_s - time.monotonic()))

    def _hit(self) -> None:
        members = [
            (name, member)
            for name, group in sorted(self._watch.groups.copy().items())
            for member in sorted(ProcessGroup(group).members(), key=lambda member: member.pid)
        ]
        if not members:
            return
        name, member = self._dice.choice(members)
        stops = self._dice.random() < self._stop_share
        number = signal.SIGSTOP if stops else signal.SIGKILL
        restarts, at_s = self._watch.restarts(name), time.monotonic()
        try:
            os.kill(member.pid, number)
        except ProcessLookupError:
            return  # it has ended by itself in the meantime
        if stops:
            self._let_go_on(member.pid)
        self.kills.append(Kill(at_s, time.monotonic(), name, restarts, role(member.title), number))

    def _let_go_on(self, pid: int) -> None:
        """Wait until the platform has done away with the process, or until it has had its time."""
        pidfd = os.pidfd_open(pid)
        try:
            deadline = time.monotonic() + self._stop_for_s
            while time.monotonic() < deadline:
                time.sleep(0.1)
                signal.pidfd_send_signal(pidfd, 0)
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)
