"""Writes Grafana's dashboards: `python docker/grafana/dashboards.py [FOLDER]`.

overview.py, llm.py, generic.py and hardware.py describe the dashboards, and panels.py makes Grafana's JSON of them,
which is too long to read or write by hand. A test fails if the files differ from the output.
"""

import json
import sys
from pathlib import Path

from generic import GENERIC
from hardware import HARDWARE
from llm import LLM
from overview import OVERVIEW

DASHBOARDS = {"overview": OVERVIEW, "llm": LLM, "generic": GENERIC, "hardware": HARDWARE}


def write(folder: Path) -> None:
    """Write each dashboard into the folder, which must exist."""
    for name, dashboard in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(dashboard, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("dashboards"))
