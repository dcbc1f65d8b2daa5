"""Processes and the host: real processes that did a known amount of work, and kernel files with known numbers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.telemetry.cpu import Host, Processes

BURN = """
import os, sys
def burn():
    while sum(os.times()[:2]) < 0.3: pass
sys.stdin.readline()
child = os.fork()
burn()
if child:
    print("burnt", flush=True)
    sys.stdin.readline()
    os.waitpid(child, 0)
else:
    os.write(2, b"burnt")
    sys.stdin.readline()
    os._exit(0)
print("reaped", flush=True)
sys.stdin.readline()
"""

# The main thread waits once; the other sleeps 50 times, and lives on.
SLEEPY = """
import sys, threading, time
slept, leave = threading.Event(), threading.Event()
def sleep():
    for _ in range(50): time.sleep(0.001)
    slept.set()
    leave.wait()
threading.Thread(target=sleep).start()
slept.wait()
print("slept", flush=True)
sys.stdin.readline()
leave.set()
"""


@pytest.fixture
def burner() -> "Iterator[subprocess.Popen[str]]":
    """A process that, told to, burns 0.3 CPU seconds, as does its child; both then wait."""
    command = [sys.executable, "-c", BURN]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def _tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_a_model_is_charged_for_what_its_whole_tree_burnt(burner: "subprocess.Popen[str]") -> None:
    assert burner.stdout is not None
    assert burner.stderr is not None
    reader = Processes()
    before, _ = reader.read({"busy": burner.pid})
    _tell(burner)
    assert burner.stdout.readline() == "burnt\n"
    assert burner.stderr.read(5) == "burnt"
    after, owners = reader.read({"busy": burner.pid})
    assert before["busy"].processes == 1
    assert after["busy"].processes == 2
    assert list(owners.values()) == ["busy", "busy"]
    assert before["busy"].cpu_s is not None
    assert after["busy"].cpu_s is not None
    assert 0.5 < after["busy"].cpu_s - before["busy"].cpu_s < 30
    assert after["busy"].resident_bytes is not None
    assert 2**20 < after["busy"].resident_bytes < 2**32


def test_a_process_that_was_nobodys_is_a_models_as_soon_as_its_root_is_named(burner: "subprocess.Popen[str]") -> None:
    reader = Processes()
    for _ in range(2):
        assert burner.pid not in reader.read({})[1]
    samples, owners = reader.read({"busy": burner.pid})
    assert owners[burner.pid] == "busy"
    assert samples["busy"].processes == 1


def test_what_an_ended_process_used_stays_in_the_sum(burner: "subprocess.Popen[str]") -> None:
    assert burner.stdout is not None
    reader = Processes()
    _tell(burner)
    assert burner.stdout.readline() == "burnt\n"
    alive, _ = reader.read({"busy": burner.pid})
    burner.kill()
    burner.wait()
    after, owners = reader.read({"busy": burner.pid})
    later, _ = reader.read({"busy": 2**22 + 1})
    assert alive["busy"].cpu_s is not None
    assert after["busy"].cpu_s is not None
    assert after["busy"].cpu_s >= alive["busy"].cpu_s >= 0.25
    assert burner.pid not in owners
    assert (later["busy"].processes, later["busy"].resident_bytes) == (0, None)
    assert later["busy"].cpu_s is not None
    assert later["busy"].cpu_s >= after["busy"].cpu_s


def test_context_switches_are_those_of_every_thread() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "slept\n"
        reader = Processes()
        read = reader.read({"sleepy": process.pid})[0]["sleepy"]
        left_out = reader.read({"sleepy": process.pid}, switches=False)[0]["sleepy"]
        _tell(process)
    assert read.voluntary_switches is not None
    assert read.voluntary_switches >= 50
    assert (left_out.voluntary_switches, left_out.involuntary_switches) == (None, None)
    assert left_out.cpu_s is not None


def test_a_model_that_never_ran_is_unknown_and_not_zero() -> None:
    [model] = Processes().read({"ghost": 2**22 + 1})[0].values()
    assert (model.processes, model.cpu_s, model.resident_bytes, model.voluntary_switches) == (0, None, None, None)


def test_a_process_belongs_to_the_nearest_root_and_an_orphan_to_its_group(tmp_path: Path) -> None:
    """The platform (10) runs a model (20), whose child (22) lost its parent and went to init."""
    for pid, parent, group, ticks in [(1, 0, 1, 9), (10, 1, 10, 100), (20, 10, 20, 7), (21, 20, 20, 3), (22, 1, 20, 5)]:
        _process(tmp_path, pid, parent, group, ticks)
    models, owners = Processes(tmp_path).read({"platform": 10, "chat": 20})
    assert owners == {10: "platform", 20: "chat", 21: "chat", 22: "chat"}
    per_tick = 1 / os.sysconf("SC_CLK_TCK")
    assert models["platform"].cpu_s == pytest.approx(200 * per_tick)
    assert models["chat"].cpu_s == pytest.approx(30 * per_tick)
    assert models["chat"].resident_bytes == 3 * 50 * os.sysconf("SC_PAGE_SIZE")


def test_a_zombie_has_used_its_time_but_is_no_process(tmp_path: Path) -> None:
    _process(tmp_path, 20, 1, 20, 7)
    _process(tmp_path, 21, 20, 20, 3, state="Z")
    [model] = Processes(tmp_path).read({"chat": 20})[0].values()
    assert model.processes == 1
    assert model.cpu_s == pytest.approx(20 / os.sysconf("SC_CLK_TCK"))


def test_a_process_id_that_was_given_anew_counts_from_nothing(tmp_path: Path) -> None:
    reader = Processes(tmp_path)
    _process(tmp_path, 20, 1, 20, 50, started=1000)
    reader.read({"chat": 20})
    _process(tmp_path, 20, 1, 20, 4, started=2000)
    [model] = reader.read({"chat": 20})[0].values()
    assert model.cpu_s == pytest.approx(108 / os.sysconf("SC_CLK_TCK"))


def test_a_thread_id_that_was_given_anew_counts_from_nothing(tmp_path: Path) -> None:
    reader = Processes(tmp_path)
    _process(tmp_path, 20, 1, 20, 1)
    _thread(tmp_path, 20, 20, 100, 10)
    _thread(tmp_path, 20, 21, 50, 5)
    first = reader.read({"chat": 20})[0]["chat"]
    _thread(tmp_path, 20, 20, 103, 11)
    _thread(tmp_path, 20, 21, 60, 2)
    second = reader.read({"chat": 20})[0]["chat"]
    assert (first.voluntary_switches, first.involuntary_switches) == (150, 15)
    assert (second.voluntary_switches, second.involuntary_switches) == (213, 18)


def test_the_host_is_measured_between_two_readings(tmp_path: Path) -> None:
    host = Host(tmp_path, tmp_path)
    _write(tmp_path / "stat", "cpu  100 0 50 800 20 5 5 20 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    first = host.read()
    _write(tmp_path / "stat", "cpu  140 10 60 830 25 6 9 20 0 0\n")
    second = host.read()
    _write(tmp_path / "stat", "cpu  140 10 60 905 25 6 9 45 0 0\n")
    third = host.read()
    fourth = host.read()
    assert (first.cpu_percent, first.steal_percent) == (None, None)
    assert (second.cpu_percent, second.steal_percent) == (65.0, 0.0)
    assert (third.cpu_percent, third.steal_percent) == (0.0, 25.0)
    assert (fourth.cpu_percent, fourth.steal_percent) == (None, None)


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.stat": "usage_usec 9\nnr_throttled 3\nthrottled_usec 4500\n"}, (3, 4500)),
        ("0::/hidden\n", {"cpu.stat": "nr_throttled 1\nthrottled_usec 20\n"}, (1, 20)),
        ("0::/\n", {"cpu.stat": "usage_usec 9\nuser_usec 4\n"}, (None, None)),
        (
            "3:cpu,cpuacct:/a\n0::/\n",
            {"cpu,cpuacct/a/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 7000999\n"},
            (2, 7000),
        ),
        ("2:cpuacct:/\n1:cpu:/\n", {"cpu/cpu.stat": "nr_throttled 4\nthrottled_time 1000\n"}, (4, 1)),
        ("", {}, (None, None)),
    ],
    ids=["v2", "v2 in a container", "v2 without a limit", "v1", "v1 apart", "none"],
)
def test_throttling_is_that_of_our_control_group(
    tmp_path: Path, memberships: str, files: dict[str, str], expected: tuple[int | None, int | None]
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    _write(proc / "self" / "cgroup", memberships)
    _write(proc / "stat", "cpu  1 1 1 1 1 1 1 1 0 0\n")
    for name, text in files.items():
        _write(cgroups / name, text)
    sample = Host(proc, cgroups).read()
    assert (sample.nr_throttled, sample.throttled_usec) == expected


def test_this_machine_can_be_read() -> None:
    host = Host()
    host.read()
    sum(range(3_000_000))
    sample = host.read()
    assert sample.cpu_percent is None or 0 <= sample.cpu_percent <= 100


def _process(proc: Path, pid: int, parent: int, group: int, ticks: int, state: str = "S", started: int = 1000) -> None:
    """A process's stat file: `ticks` of user and as many of system time, 50 pages, a name that is hard to parse."""
    fields = f"{state} {parent} {group} {group} 0 -1 0 0 0 0 0 {ticks} {ticks} 900 900 20 0 1 0 {started} 0 50 0"
    _write(proc / str(pid) / "stat", f"{pid} (a) Z (b) {fields}\n")


def _thread(proc: Path, pid: int, thread_id: int, voluntary: int, involuntary: int) -> None:
    counts = f"voluntary_ctxt_switches:\t{voluntary}\nnonvoluntary_ctxt_switches:\t{involuntary}\n"
    text = f"Name:\tvoluntary\n{counts}x86_Thread_features:\t\n"  # recent kernels put more behind
    _write(proc / str(pid) / "task" / str(thread_id) / "status", text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
