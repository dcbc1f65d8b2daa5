"""What tests of the harness share: a course of requests, and a rung whose layers take the times that a test sets."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.course import Course
from benchmarks.load.request import COMPLETIONS
from benchmarks.rungs import series
from benchmarks.rungs.harness import row_readers
from benchmarks.rungs.process import ChildProcess, free_port
from benchmarks.rungs.server.rung import ServerRung
from configs.bench import Bench

Layered = Callable[..., ServerRung]
"""Sets the times of the layered server, which are zero otherwise, and returns it as somebody else's."""


def course(**bench: Any) -> Course:
    """A course of the settings under `bench`, without what a test does not ask for: warm-up and parity."""
    settings = Bench.model_validate({"warmup_requests": 0, "parity_prompts": 0, "passes": 1, **bench})
    return Course.plan(settings, settings.workload.kind)


@contextmanager
def layered_server(folder: Path) -> Iterator[str]:
    """The layered server in a process of its own, until the block ends; gives its address."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.services.layered_server", json.dumps({}), str(port)]
    child = ChildProcess("layered", argv, {}, folder / "layered.log")
    url = f"http://127.0.0.1:{port}"
    try:
        child.wait_ready(f"{url}/health", 30)
        yield url
    finally:
        child.end()


def layered_rung(url: str, times: dict[str, Any]) -> ServerRung:
    """The layered server with these times."""
    httpx.put(f"{url}/times", json=times, timeout=10).raise_for_status()
    return ServerRung(
        "layered",
        url,
        COMPLETIONS,
        "m",
        Path("unused"),
        read_series=lambda: (series.read(f"{url}/metrics"), None),
        row_readers=row_readers(),
    )
