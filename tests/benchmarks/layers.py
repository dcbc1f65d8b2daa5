"""What tests of the harness share: the layered server running, and a course for it."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.course import Course
from benchmarks.load.request import COMPLETIONS
from benchmarks.rungs import series
from benchmarks.rungs.harness import row_readers
from benchmarks.rungs.process import ChildProcess, free_port
from benchmarks.rungs.server.rung import ServerRung
from configs.bench import Bench


def course(**bench: Any) -> Course:
    """A course of the settings under `bench`, without what a test does not ask for: warm-up and parity."""
    settings = Bench.model_validate({"warmup_requests": 0, "parity_prompts": 0, "passes": 1, **bench})
    return Course.plan(settings, settings.workload.kind)


@contextlib.contextmanager
def layered(folder: Path, **times: Any) -> Iterator[ServerRung]:
    """The layered server, as somebody else's."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.services.layered_server", json.dumps(times), str(port)]
    child = ChildProcess("layered", argv, {}, folder / "layered.log")
    url = f"http://127.0.0.1:{port}"
    try:
        child.wait_ready(f"{url}/health", 30)
        yield ServerRung(
            "layered",
            url,
            COMPLETIONS,
            "m",
            folder / "unused.log",
            read_series=lambda: (series.read(f"{url}/metrics"), None),
            row_readers=row_readers(),
        )
    finally:
        child.end()
