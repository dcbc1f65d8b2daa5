"""Pulling a model from within the running platform, in a process of its own.

A pull can take minutes, converts weights with torch, and must be stopped at once when the platform stops: a child
process gives all three. The store decides where models come from; this refuses to know any source.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from servers.processes import group as process_group
from servers.processes.interpreter import module_argv
from servers.processes.reaper import Reaper


class PullError(Exception):
    """The store could not provide the model; the message is its reason."""


async def pull(
    source: str, cache_dir: Path, reaper: Reaper, phases_s: dict[str, float], on_progress: Callable[[str], None]
) -> Path:
    """Pull `source` into the store under `cache_dir` and return its folder; progress comes in words.

    `phases_s` is told how long the pull took and, where it was needed, the conversion after it. Raises PullError.
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
            on_progress(_words(event))
        raise PullError(f"the pull of {source} ended with status {await child.wait()}")
    finally:
        process_group.kill(child.pid)
        reaper.forget(child.pid)
        await child.wait()


def _words(event: Mapping[str, Any]) -> str:
    done, total = event.get("done_bytes"), event.get("total_bytes")
    amount = "" if done is None else f" {done / 1e6:.0f} MB" + ("" if total is None else f" of {total / 1e6:.0f} MB")
    return f"{event.get('message') or event['phase']}{amount}"
