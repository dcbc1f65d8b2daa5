"""The pull of a model by the running platform, in a child process.

A pull can take minutes, converts weights with torch, and must end at once when the platform stops: a child process
allows all three.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from servers.processes.background import complete
from servers.processes.group import ProcessGroup
from servers.processes.interpreter import module_argv
from servers.processes.reaper import Reaper


class PullError(Exception):
    """The store could not provide the model; the message is its reason."""


async def pull(
    source: str, cache_dir: Path, reaper: Reaper, phases_s: dict[str, float], on_progress: Callable[[str], None]
) -> Path:
    """Pull `source` into the store under `cache_dir` and return its folder; `on_progress` gets lines for people.

    `phases_s` gets the duration of the pull and, where there was one, of the conversion after it. Raises PullError.
    """
    begin_s = time.monotonic()
    phase = "pull"
    child = await asyncio.create_subprocess_exec(
        *module_argv("servers.store", source, "--cache-dir", str(cache_dir)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    reaper.track(child.pid)
    try:
        assert child.stdout is not None
        async for line in child.stdout:
            event = json.loads(line)
            if event.get("phase") == "converting" and phase == "pull":
                phases_s[phase] = time.monotonic() - begin_s
                phase, begin_s = "convert", time.monotonic()
            if "path" in event:
                phases_s[phase] = time.monotonic() - begin_s
                return Path(event["path"])
            if "error" in event:
                raise PullError(event["error"])
            on_progress(_describe(event))
        raise PullError(f"the pull of {source} ended with status {await child.wait()}")
    finally:
        await complete(_end(child, reaper))


async def _end(child: asyncio.subprocess.Process, reaper: Reaper) -> None:
    await asyncio.to_thread(ProcessGroup(child.pid).kill)
    reaper.forget(child.pid)
    await child.wait()


def _describe(event: Mapping[str, Any]) -> str:
    size, total = event.get("done_bytes"), event.get("total_bytes")
    amount = "" if size is None else f" {size / 1e6:.0f} MB" + ("" if total is None else f" of {total / 1e6:.0f} MB")
    return f"{event.get('message') or event['phase']}{amount}"
