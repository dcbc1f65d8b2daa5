"""One child process tree: started, listened to, watched, ended.

It is engine-agnostic: it knows a command, a log and a process group. A process that the model cannot live without is
watched through its pidfd, so that its death is known at once rather than at the next poll. It never restarts anything;
that is the supervisor's decision.
"""

import asyncio
import contextlib
import logging
import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from servers.engines.base import Command
from servers.models.child_log import ChildWords, split_request_id
from servers.processes import group as process_group
from servers.processes.reaper import Reaper

_log = logging.getLogger("litport.model")
_LOG_FILE_BYTES = 10 * 1024**2
_TAIL_LINES = 400
_LAST_WORDS_S = 5.0


class ModelProcess:
    """A running child of the model `name`. `broken` is set once it cannot serve any more; `reason` then says why."""

    def __init__(self, name: str, reaper: Reaper, log_file: Path) -> None:
        self.name = name
        self.reason = ""
        self.broken = asyncio.Event()
        self.group_id = 0
        self._reaper = reaper
        self._tail: deque[tuple[float, str]] = deque(maxlen=_TAIL_LINES)
        self._recent_s = math.inf
        self._tasks: list[asyncio.Task[None]] = []
        self._pidfds: dict[int, int] = {}
        self._file = _LogFile(log_file, maxBytes=_LOG_FILE_BYTES, backupCount=2, delay=True)
        self._words = ChildWords(name, log_file)

    async def start(self, command: Command) -> None:
        """Start the child in a session, and so a process group, of its own. Raises OSError when it cannot start."""
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **command.environ},
            start_new_session=True,
        )
        self.group_id = process.pid
        self._reaper.track(process.pid)
        assert process.stdout is not None
        self._tasks = [
            asyncio.create_task(self._listen(process.stdout)),
            asyncio.create_task(self._await_exit(process)),
        ]

    def watch(self, pids: Iterable[int]) -> None:
        """From now on count the model as broken as soon as one of these processes ends."""
        self._tail.clear()  # what was said while starting is not why a running model breaks
        self._recent_s = _LAST_WORDS_S  # nor is what a request of an hour ago led to
        self._words.is_up = True
        loop = asyncio.get_running_loop()
        for pid in pids:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                self.give_up(f"process {pid} ended")
                return
            self._pidfds[pidfd] = pid
            loop.add_reader(pidfd, self._on_end, pidfd, pid)

    @property
    def watched(self) -> list[int]:
        """The processes that the model cannot live without."""
        return list(self._pidfds.values())

    def give_up(self, reason: str) -> None:
        """Count the child as broken from now on; the first reason stands."""
        if not self.broken.is_set():
            self.reason = reason
            self.broken.set()

    async def end(self, grace_s: float) -> None:
        """End the whole group: SIGTERM and `grace_s` seconds for it, if any, then SIGKILL. Nothing of it is left."""
        for pidfd in list(self._pidfds):
            self._forget(pidfd)
        self._words.close()
        self._words.is_up = False
        if self.group_id:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    if grace_s:
                        process_group.terminate(self.group_id)
                    while process_group.members(self.group_id):  # noqa: ASYNC110 # /proc has no events
                        await asyncio.sleep(0.05)
            if not await asyncio.to_thread(process_group.kill, self.group_id):
                about = {"model": self.name}
                _log.error("%s: processes of group %d outlived SIGKILL", self.name, self.group_id, extra=about)
            self._reaper.forget(self.group_id)
            await asyncio.wait(self._tasks[1:], timeout=1)  # it has been killed: this only takes note of it
            process_group.reap(self.group_id)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._words.close()
        self._file.close()

    def cause(self) -> str:
        """Why the child broke: what was seen of it, and the line of its output that most likely names the cause."""
        since_s = time.monotonic() - self._recent_s
        said = next(_error_lines(line for at_s, line in self._tail if at_s >= since_s), "")
        return "; ".join(filter(None, (self.reason, said)))

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while block := await stream.read(65536):
            *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                if text := line.decode(errors="replace").rstrip():
                    self._take(text)
        if rest:
            self._take(rest.decode(errors="replace"))

    def _take(self, text: str) -> None:
        self._tail.append((time.monotonic(), split_request_id(text)[0]))
        record = logging.LogRecord(self.name, logging.DEBUG, "", 0, text, None, None)
        self._file.emit(record)
        self._words.take(text)

    async def _await_exit(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self.give_up(f"its main process ended with status {status}")

    def _on_end(self, pidfd: int, pid: int) -> None:
        self._forget(pidfd)
        self.give_up(f"its process {pid} ended")

    def _forget(self, pidfd: int) -> None:
        if pidfd in self._pidfds:
            del self._pidfds[pidfd]
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)


class _LogFile(RotatingFileHandler):
    """What a child says, on the disk. A disk that is full or read-only costs lines and one warning, never the model."""

    _has_warned = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # logging's; its own prints tracebacks
        if not self._has_warned:
            self._has_warned = True
            dropped, about = "%s: lines of its log are dropped: %s (%s)", {"model": record.name}
            _log.warning(dropped, record.name, sys.exc_info()[1], self.baseFilename, extra=about)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the last line did not reach the disk either
            super().close()


# "ValueError: ..." at the start of a line or behind vLLM's prefix, "litserve_main: error: ..." of argument parsers.
_ERROR = re.compile(r"(?:^|\s)((?:[A-Za-z_][\w.]*(?:Error|Exception)|[\w.]+: error): .+)")
# What vLLM says after the fact; the cause stands above it.
_CONSEQUENCE = re.compile(r"Engine core initialization failed|WorkerProc initialization failed|Failed core proc")


def _error_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if (match := _ERROR.search(line)) and not _CONSEQUENCE.search(line):
            yield match.group(1)
