"""A load that exists only in what the stand-in for NVML answers (tests/services/nvml.c): no GPU, no kernel.

`FAKE_NVML` names the file of answers. The card has no energy counter and no thermometer. Its duty cycle is that of the
load, except that a tenth reads as 37 %; its process is this one.
"""

import json
import os
import sys
import time
from pathlib import Path

_GIB = 1024**3
_CONTEXT_BYTES = 500_000_000
_COUNTERS = 1000


def main() -> None:
    held_bytes = 0
    _answer(0, held_bytes)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        share = command.get("share", 1.0 if command["do"] in ("fill", "stream") else 0.0)
        held_bytes += int(command.get("gib", 0) * _GIB)
        sm, dram = {"fill": (90, 20), "stream": (40, 80), "duty": (1, 0)}.get(command["do"], (0, 0))
        _answer(37 if share == 0.1 else round(100 * share), held_bytes, sm, dram)
        time.sleep(command["seconds"])
        print(json.dumps({"share": share}), flush=True)


def _answer(utilization: int, held_bytes: int, sm: int = 0, dram: int = 0) -> None:
    used_bytes = _CONTEXT_BYTES + held_bytes
    counters = {2: sm, 3: sm, 10: dram}
    lines = [
        "count 1",
        "0.uuid GPU-a",
        "0.name NVIDIA H100 80GB HBM3",
        "0.mig 0",
        "0.power 250500",
        "0.clock.1 1755",
        "0.clock.2 2619",
        "0.reasons 0x0",
        "0.gpm 1",
        f"0.utilization {utilization}",
        f"0.memory_total {80 * _GIB}",
        f"0.memory_used {used_bytes}",
        f"0.processes {os.getpid()}:{used_bytes}",
        *(f"0.gpm.{number} {_steps(percent)}" for number, percent in counters.items()),
    ]
    file = Path(os.environ["FAKE_NVML"])
    new = file.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    new.replace(file)


def _steps(percent: int) -> str:
    """A counter that grows by so much from each sample to the next."""
    return "|".join(str(percent * number) for number in range(_COUNTERS))


if __name__ == "__main__":
    main()
