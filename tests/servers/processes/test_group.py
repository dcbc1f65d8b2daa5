"""Process groups: listed and ended whole, and nobody else is touched."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from servers.processes.group import ProcessGroup
from servers.processes.proc import cpu_s, read_stat, stopped_pids
from tests.services.polling import wait_until

# Two processes in a group of their own; the second outlives the first.
FAMILY = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def leader() -> "Iterator[subprocess.Popen[bytes]]":
    """The first process of a group of two, both running."""
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        ProcessGroup(process.pid).kill()


def test_a_group_lists_its_processes_with_parent_title_and_memory(leader: "subprocess.Popen[bytes]") -> None:
    # A process has no title while it replaces its program.
    wait_until(lambda: all(member.title for member in ProcessGroup(leader.pid).members()), 5)
    first, second = sorted(ProcessGroup(leader.pid).members(), key=lambda member: member.pid)
    assert (first.pid, first.parent_pid) == (leader.pid, os.getpid())
    assert (second.parent_pid, second.title) == (leader.pid, "sleep 60")
    assert first.title.startswith(f"{sys.executable} -c import subprocess")
    assert 2**20 < first.resident_bytes < 2**30


def test_killing_ends_every_process_and_leaves_the_caller_alone(leader: "subprocess.Popen[bytes]") -> None:
    assert ProcessGroup(leader.pid).kill()
    assert leader.wait(5) == -signal.SIGKILL
    assert ProcessGroup(leader.pid).members() == []
    assert os.getpid() in {member.pid for member in ProcessGroup(os.getpgid(0)).members()}


def test_terminating_asks_and_does_not_wait_for_the_answer(leader: "subprocess.Popen[bytes]") -> None:
    ProcessGroup(leader.pid).terminate()
    assert leader.wait(5) == -signal.SIGTERM
    wait_until(lambda: not ProcessGroup(leader.pid).members(), 5)
    ProcessGroup(leader.pid).terminate()  # of a group that is gone it asks nothing


def test_a_zombie_is_no_member_and_has_used_no_time_of_the_living(leader: "subprocess.Popen[bytes]") -> None:
    assert (ProcessGroup(leader.pid).memory_bytes() or 0) > 2**20
    leader.kill()
    wait_until(lambda: (stat := read_stat(leader.pid)) is not None and stat.is_dead, 5)
    [orphan] = ProcessGroup(leader.pid).members()
    assert orphan.title == "sleep 60"
    assert cpu_s([leader.pid]) == 0
    assert ProcessGroup(leader.pid).memory_bytes() is None, "what is left says little of the whole"


def test_a_stopped_process_is_told_from_one_that_runs(leader: "subprocess.Popen[bytes]") -> None:
    [sleeper] = {member.pid for member in ProcessGroup(leader.pid).members()} - {leader.pid}
    os.kill(sleeper, signal.SIGSTOP)
    wait_until(lambda: stopped_pids([leader.pid, sleeper, 2**22 + 1]) == [sleeper], 5)
    assert ProcessGroup(leader.pid).kill()
