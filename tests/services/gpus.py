"""GPUs for a machine that has none: a stand-in for NVIDIA's library (nvml.c) answers for them.

The real nvidia-ml-py asks it. What it answers is a text, whose lines nvml.c explains; `H100` is the text of one card
without its energy, which grows, and its processes.
"""

import os
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("nvml.c")
H100 = """0.uuid GPU-a
0.name NVIDIA H100 80GB HBM3
0.mig 0
0.utilization 37
0.memory_total 85899345920
0.memory_used 1073741824
0.power 250500
0.temperature 61
0.clock.1 1755
0.clock.2 2619
0.reasons 0x24
"""
_WATTS, _EVERY_S = 250, 2
_ENERGY = "|".join(str(reading * _WATTS * _EVERY_S * 1000) for reading in range(1, 2000))  # mJ, an hour of it
_ANSWERS = f"""count 2
{H100}0.energy {_ENERGY}
0.gpm 1
0.gpm.2 0|50
0.gpm.3 0|20
0.gpm.10 0|30
0.processes {{processes}}
1.uuid GPU-b
1.name NVIDIA H100 80GB HBM3
1.mig 1
1.memory_total 40000
1.memory_used 3000
1.mig_max 7
1.mig.0.uuid MIG-x
1.mig.0.memory_total 10000
1.mig.0.memory_used 1000
1.mig.0.processes 4194303:900
"""


def compile_library(folder: Path) -> Path:
    """The stand-in, compiled into `folder` under the name of NVIDIA's library."""
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", library, _SOURCE], check=True, timeout=60)
    return library


def environ(library: Path, answers: Path) -> dict[str, str]:
    """The variables that make a program find the stand-in, which answers what the file `answers` holds."""
    return {"LD_LIBRARY_PATH": os.fspath(library.parent), "FAKE_NVML": os.fspath(answers)}


class TwoGpus:
    """A card that a model is on, and one cut into MIG slices: the variables for a program, and who is on the first."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._answers = folder / "gpus"
        self.environ = environ(library, self._answers)
        self._write("-")

    def give(self, pid: int) -> None:
        """From now on this process is on the first GPU."""
        self._write(f"{pid}:1000")

    def _write(self, processes: str) -> None:
        new = self._answers.with_suffix(".new")
        new.write_text(_ANSWERS.format(processes=processes), encoding="utf-8")
        new.replace(self._answers)
