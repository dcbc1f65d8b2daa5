"""The files that settings name: a platform that watches them notices when one changes."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.settings import ModelSettings

Stamps = Mapping[Path, tuple[int, int] | None]
"""When each file was last written (ns), and its size in bytes; None for one that is not there."""

# A file of code with or without a class, or a GGUF file.
_FILE = re.compile(r"([^:]+\.(?:py|gguf))(?::\w+)?", re.DOTALL)
_POLL_S = 0.5


def stamps(settings: ModelSettings) -> Stamps:
    """The files of code and weights that the settings of a model name, as they are now."""
    return look(Path(match[1]) for text in _texts(settings.model_dump()) if (match := _FILE.fullmatch(text)))


def look(files: Iterable[Path]) -> Stamps:
    """These files as they are now."""
    return {file: _stamp(file) for file in files}


async def watch(files: Callable[[], Iterable[Path]], on_change: Callable[[], Awaitable[object]]) -> None:
    """Await `on_change` whenever one of the files has changed and then stayed as it is for a moment. Never returns."""
    last = look(files())
    while True:
        await asyncio.sleep(_POLL_S)
        now = look(files())
        while now != last:
            last = now
            await asyncio.sleep(_POLL_S)  # an editor may write a file in several steps
            now = look(files())
            if now == last:
                await on_change()
                # What has changed meanwhile counts as a change; what is named since does not.
                last = {file: now.get(file, stamp) for file, stamp in look(files()).items()}
                break


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
