"""One child process tree of a model: start, log, watch, end.

It needs a command, a log file and a process group, and nothing of the engine. A process that the model cannot work
without is watched through its pidfd, so that its death is known at once and not at the next poll.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from io import TextIOWrapper
from itertools import takewhile
from logging.handlers import RotatingFileHandler
from pathlib import Path

from servers.apis.exports import STEP
from servers.engines.base import Command
from servers.models.child_log import ChildLog, split_request_id
from servers.processes.background import keep_up
from servers.processes.group import ProcessGroup
from servers.processes.reaper import Reaper

_log = logging.getLogger("litport.model")
_LOG_FILE_BYTES = 10 * 1024**2
_TAIL_LINES = 400
_CAUSE_WINDOW_S = 5.0


class ModelProcess:
    """A running child of the model `name`. `broken` is set once it cannot serve any more, for `reason`.

    `on_step` is called with each step that the child names in its output.
    """

    def __init__(self, name: str, reaper: Reaper, log_file: Path) -> None:
        self.name = name
        self.on_step: Callable[[str], None] = lambda _: None
        self.reason = ""
        self.broken = asyncio.Event()
        self.group_id = 0
        self._reaper = reaper
        self._tail: deque[tuple[float, str]] = deque(maxlen=_TAIL_LINES)
        self._recent_s = math.inf
        self._tasks: list[asyncio.Task[None]] = []
        self._pidfds: dict[int, int] = {}
        self._file = _LogFile(log_file, maxBytes=_LOG_FILE_BYTES, backupCount=2, delay=True)
        self._log = ChildLog(name, log_file)

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
            asyncio.create_task(keep_up(f"{self.name}: its output", partial(self._listen, process.stdout))),
            asyncio.create_task(self._await_exit(process)),
        ]

    def watch(self, pids: Iterable[int]) -> None:
        """From now on count the model as broken as soon as one of these processes ends."""
        self._tail.clear()  # an error during the start is not the cause of a later death
        self._recent_s = _CAUSE_WINDOW_S  # nor is one that a request caused an hour ago
        self._log.is_up = True
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
        """The processes that the model cannot work without."""
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
        self._log.close()
        self._log.is_up = False
        if self.group_id:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    if grace_s:
                        ProcessGroup(self.group_id).terminate()
                    while ProcessGroup(self.group_id).members():  # noqa: ASYNC110 # /proc has no events
                        await asyncio.sleep(0.05)
            if not await asyncio.to_thread(ProcessGroup(self.group_id).kill):
                fields = {"model": self.name}
                _log.error("%s: processes of group %d outlived SIGKILL", self.name, self.group_id, extra=fields)
            self._reaper.forget(self.group_id)
            await asyncio.wait(self._tasks[1:], timeout=1)  # it was killed: this only collects its exit status
            ProcessGroup(self.group_id).reap()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._log.close()
        self._file.close()

    def cause(self) -> str:
        """Why the child broke: the observed reason, and the line of its output that most likely names the cause."""
        since_s = time.monotonic() - self._recent_s
        lines = [line for at_s, line in self._tail if at_s >= since_s]
        error_line = next(_error_lines(lines), "")
        return "; ".join(filter(None, (self.reason, error_line, _last_words(lines, error_line))))

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        partial_line = b""
        while block := await stream.read(65536):
            *lines, partial_line = (partial_line + block).replace(b"\r", b"\n").split(b"\n")
            for line in lines:
                if text := line.decode(errors="replace").rstrip():
                    self._take(text)
        if partial_line:
            self._take(partial_line.decode(errors="replace"))

    def _take(self, text: str) -> None:
        self._tail.append((time.monotonic(), split_request_id(text)[0]))
        record = logging.LogRecord(self.name, logging.DEBUG, "", 0, text, None, None)
        self._file.emit(record)
        self._log.take(text)
        if text.startswith(STEP):
            self.on_step(text.removeprefix(STEP))

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
    """The output of a child on the disk. On a full or read-only disk lines are lost, with one warning."""

    _has_warned = False

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 # logging's; its own prints tracebacks
        if not self._has_warned:
            self._has_warned = True
            message, fields = "%s: lines of its log are dropped: %s (%s)", {"model": record.name}
            _log.warning(message, record.name, sys.exc_info()[1], self.baseFilename, extra=fields)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the disk does not take the last line either
            super().close()


# "ValueError: ..." at the start of a line or behind vLLM's prefix, "litserve_main: error: ..." of argument parsers, and
# llama-server's "error: ..." and "failed to load model ...".
_ERROR = re.compile(
    r"(?:^|\s)((?:[A-Za-z_][\w.]*(?:Error|Exception)|[\w.]+: error): .+)|^((?:error: |.*\bfailed to load model\b).+)"
)
# vLLM's messages that follow from the cause, which is a line above them.
_CONSEQUENCE = re.compile(r"Engine core initialization failed|WorkerProc initialization failed|Failed core proc")


_CHAIN = re.compile("exception was the direct cause of the following|During handling of the above exception")
# The worker host's word about a worker that could say nothing more itself.
_OBITUARY = re.compile(r"error: .*worker \d+ \(process \d+\)")
_LONGEST_WORDS = 200


def _last_words(lines: Sequence[str], error_line: str) -> str:
    """What a worker wrote last, where the error line only tells that it has ended."""
    if not _OBITUARY.search(error_line):
        return ""
    before = [line for line in takewhile(lambda line: error_line not in line, lines) if line.strip()]
    return f"its last words: {before[-1][:_LONGEST_WORDS]}" if before else ""


def _error_lines(lines: Iterable[str]) -> Iterator[str]:
    """The errors; of a chain of exceptions the last one, which was raised for its reader."""
    error, is_chained = "", False
    for line in lines:
        match = _ERROR.search(line)
        if match and not _CONSEQUENCE.search(line):
            if error and not is_chained:
                yield error
            error = match.group(1) or match.group(2)
        is_chained = bool(_CHAIN.search(line)) or (is_chained and match is None)
    if error:
        yield error
