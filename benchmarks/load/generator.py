"""The load generator: Locust in library mode, in processes of its own.

    python -m benchmarks.load.generator PLAN RESULT

The child half loads a plan (MessagePack), prints `ready`, reads from standard input the moment to begin, and writes the
records and its own cost. The parent half divides the calls among the children and gathers their records. It runs in
processes of its own because Locust patches the whole process.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clients.record import Call, RequestRecord
from servers.processes.interpreter import module_argv

# After it has closed its output.
_END_TIMEOUT_S = 60.0
# Every child must have read its start time before it comes.
_HEAD_START_S = 0.2
_LAG_PERIOD_S = 0.01


class GeneratorError(Exception):
    """A generator process has failed; its own output says how."""


class Plan(msgspec.Struct, frozen=True):
    """The work of one generator process: `users` at a time send `calls` to `url`, and read the answers as `read_as`."""

    url: str
    read_as: str
    users: int
    calls: list[Call]
    time_limit_s: float
    headers: dict[str, str] = {}


class Cost(msgspec.Struct, frozen=True):
    """What the load cost one generator process: processor seconds in the wall seconds, and the lag of its loop."""

    cpu_s: float
    wall_s: float
    lag_p99_s: float
    lag_max_s: float


class Result(msgspec.Struct, frozen=True):
    """All records in the order of their calls, and the cost of each generator process."""

    records: list[RequestRecord]
    costs: list[Cost]


def generate(
    url: str,
    read_as: str,
    calls: Sequence[Call],
    users: int,
    time_limit_s: float,
    processes: int = 1,
    headers: Mapping[str, str] | None = None,
) -> Result:
    """Make the load and wait for its end. Raises GeneratorError."""
    processes = max(1, min(processes, users, len(calls)))
    shares = [[call for call in calls if call.session % processes == part] for part in range(processes)]
    if not any(call.after is not None for call in calls):
        shares = [list(calls[part::processes]) for part in range(processes)]
    crowds = [users // processes + (part < users % processes) for part in range(processes)]
    with tempfile.TemporaryDirectory(prefix="litport-load-") as folder:
        children = []
        for part, (share, crowd) in enumerate(zip(shares, crowds, strict=True)):
            plan, result = Path(folder, f"{part}.plan"), Path(folder, f"{part}.result")
            plan.write_bytes(
                msgspec.msgpack.encode(Plan(url, read_as, crowd, share, time_limit_s, headers=dict(headers or {})))
            )
            children.append((_start(plan, result), result))
        try:
            for child, _ in children:
                _expect_ready(child)
            begin_s = time.monotonic() + _HEAD_START_S
            for child, _ in children:
                assert child.stdin is not None
                child.stdin.write(f"{begin_s}\n")
                child.stdin.flush()
            parts = [_finish(child, result) for child, result in children]
        finally:
            for child, _ in children:
                child.kill()
                child.communicate()
    records = sorted((record for part in parts for record in part.records), key=lambda record: record.index)
    return Result(records, [cost for part in parts for cost in part.costs])


def _start(plan: Path, result: Path) -> "subprocess.Popen[str]":
    argv = module_argv("benchmarks.load.generator", str(plan), str(result))
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def _expect_ready(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise GeneratorError(f"the load generator ended with status {child.wait(_END_TIMEOUT_S)} before it began")


def _finish(child: "subprocess.Popen[str]", result: Path) -> Result:
    status = child.wait()
    if status != 0:
        raise GeneratorError(f"the load generator ended with status {status}")
    return msgspec.msgpack.decode(result.read_bytes(), type=Result)


# All that follows runs in the generator's own process.


def main() -> int:
    """Load the plan, wait for the start, make the load, write the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C comes here, too; the harness ends this process
    from locust.env import Environment

    from clients.users import USERS, PlannedCalls

    plan_file, result_file = map(Path, sys.argv[1:])
    plan = msgspec.msgpack.decode(plan_file.read_bytes(), type=Plan)
    logging.getLogger("locust").setLevel("ERROR")  # it warns of the rate at which we start users
    environment: Any = Environment(user_classes=[USERS[plan.read_as]], host=plan.url)
    calls = PlannedCalls(plan.calls, plan.time_limit_s)
    environment.calls = calls
    environment.headers = plan.headers
    runner = environment.create_local_runner()
    runner.start(plan.users, spawn_rate=1e6, wait=True)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    begin_s = float(sys.stdin.readline())
    cost = _load(runner, calls, begin_s)
    runner.quit()
    result_file.write_bytes(msgspec.msgpack.encode(Result(calls.records, [cost])))
    return 0


def _load(runner: Any, calls: Any, begin_s: float) -> Cost:
    """Let the users go at `begin_s`, and watch the loop until the last of them has stopped."""
    import gevent

    lags_s: list[float] = []
    parent = os.getppid()
    while (wait_s := begin_s - time.monotonic()) > 0:
        gevent.sleep(wait_s)
    cpu_s = _cpu_s()
    calls.begin(begin_s)
    while runner.user_count:
        asleep_s = time.monotonic()
        gevent.sleep(_LAG_PERIOD_S)
        if os.getppid() != parent:
            raise SystemExit("the harness is gone, so nobody wants this load")
        lags_s.append(time.monotonic() - asleep_s - _LAG_PERIOD_S)
    wall_s = time.monotonic() - begin_s
    lags_s.sort()
    return Cost(_cpu_s() - cpu_s, wall_s, lags_s[int(len(lags_s) * 0.99)], lags_s[-1])


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main())
