"""Our control group, which holds the limits of a container (cgroups(7), version 2 or 1)."""

from pathlib import Path

from servers.processes.proc import PROC, read_text

CGROUPS = Path("/sys/fs/cgroup")


def folder_with(controller: str, file: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Path | None:
    """The folder of our control group that has this file; where a container hides its path, the root it can see."""
    for line in read_text(proc / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            hierarchies = [cgroups]
        elif controller in controllers.split(","):
            hierarchies = [cgroups / controllers, cgroups / controller]
        else:
            continue
        for folder in [place for root in hierarchies for place in (root / path.lstrip("/"), root)]:
            if read_text(folder / file):
                return folder
    return None
