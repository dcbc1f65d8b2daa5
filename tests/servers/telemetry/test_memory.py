"""Memory, as the machine and the control group tell it."""

from pathlib import Path

import psutil
import pytest

from servers.telemetry.memory import kills, memory

MIB = 2**20


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        (
            "0::/pod\n",
            {
                "pod/memory.max": f"{512 * MIB}\n",
                "pod/memory.current": f"{300 * MIB}\n",
                "pod/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
            },
            (512 * MIB, 312 * MIB),
        ),
        (
            "3:memory:/docker/x\n",
            {
                "memory/memory.limit_in_bytes": f"{64 * MIB}\n",
                "memory/memory.usage_in_bytes": f"{70 * MIB}\n",
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            (64 * MIB, 0),
        ),
    ],
)
def test_a_container_has_what_its_control_group_leaves(
    tmp_path: Path, memberships: str, files: dict[str, str], expected: tuple[int, int]
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(memberships)
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert memory(tmp_path / "proc", tmp_path / "cgroup") == expected


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096), ""])
def test_without_a_limit_it_is_the_machines(tmp_path: Path, limit: str) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("5")
    assert memory(tmp_path / "proc", tmp_path).total_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("vmstat", "files", "expected"),
    [
        ("oom_kill 2\n", {"memory/memory.oom_control": "under_oom 0\noom_kill 1\n"}, 3),
        ("nr_free 2\n", {"memory.events": "oom 1\noom_kill 4\n"}, 4),
        ("", {}, None),
    ],
)
def test_the_kernels_count_of_kills_is_read_where_there_is_one(
    tmp_path: Path, vmstat: str, files: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("3:memory:/\n0::/\n")
    (tmp_path / "proc" / "vmstat").write_text(vmstat)
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert kills(tmp_path / "proc", tmp_path / "cgroup") == expected
