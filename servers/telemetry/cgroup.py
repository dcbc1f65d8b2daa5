"""Our control group: where the limits that a container has are told (cgroups(7), version 2 or 1)."""

import os
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def folder_with(controller: str, file: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Path | None:
    """The folder of our control group that has this file; where a container hides its path, the root it was given."""
    for line in read(proc / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            hierarchies = [cgroups]
        elif controller in controllers.split(","):
            hierarchies = [cgroups / controllers, cgroups / controller]
        else:
            continue
        for folder in [place for root in hierarchies for place in (root / path.lstrip("/"), root)]:
            if read(folder / file):
                return folder
    return None


def read(path: Path) -> str:
    """What a small file of the kernel's holds; empty where it is gone or not ours to read."""
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError):
        return ""
    try:
        return os.read(file, 65536).decode(errors="replace")
    except ProcessLookupError:
        return ""  # it ended between the two calls
    finally:
        os.close(file)
