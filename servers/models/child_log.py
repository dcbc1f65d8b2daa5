"""The output of a model's processes as log records of the platform, with the model's name and the level of each line.

Warnings and errors of a child appear in the platform's log, so that nobody has to open the child's log file to learn of
them. A traceback becomes one record, however many lines it has. Only levels, tracebacks and request ids are parsed.
"""

import asyncio
import logging
import math
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger("litport.model")
_LEVEL = r"(?P<level>DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)"
_HEADS = [
    re.compile(pattern)
    for pattern in (
        # vLLM: (EngineCore pid=12) INFO 11-25 20:27:12 [core.py:133] text. It repeats this before each line of a text.
        rf"[^(]{{0,40}}\((?P<speaker>[^()]* pid=\d+)\) {_LEVEL} \d\d-\d\d [\d:]+ \[[^\]]*\] ?",
        rf"{_LEVEL}:\s*",  # uvicorn; logging.basicConfig
        rf"\d{{4}}-\d\d-\d\d[ T][\d:.,]+.{{0,100}}?\b{_LEVEL}\b[\s|:\]-]*",  # LitServe; most other forms of logging
        r"\[?(?P<letter>[DIWEF])\d{4} \d\d:\d\d:\d\d[^\]]*\] ?",  # PyTorch
        r"(?:[\w.-]+: )?(?P<level>error|warning): ",  # argparse; ours
    )
]
_LETTERS = {"D": "DEBUG", "I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0a-\x1f\x7f]")
_REQUEST_ID = re.compile(r" request_id=([A-Za-z0-9._:,-]+)$")
_TRACEBACK = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):$")
_LINK = re.compile(
    r"(?:During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:)$"
)
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?$")
# The lines of a traceback are printed at once; after this time a record counts as complete.
_RECORD_TIMEOUT_S = 0.2
_MAX_LINES = 400
# vLLM prints a traceback for each request that it rejects, and clients may send any number of those.
_MAX_RECORDS_A_MINUTE = 30


@dataclass(frozen=True)
class _Line:
    """One line: its `head` ("" for none), the text behind it, and the fields of the head."""

    head: str
    body: str
    level: int | None
    speaker: str | None
    request_id: str | None

    @property
    def text(self) -> str:
        return self.head + self.body


@dataclass
class _Record:
    lines: list[_Line] = field(default_factory=list)
    traceback: bool = False
    exception: str | None = None


def split_request_id(text: str) -> tuple[str, str | None]:
    """A line without the ` request_id=...` at its end, and those ids, separated by commas; None where it has none."""
    if match := _REQUEST_ID.search(text):
        return text[: match.start()], match.group(1)
    return text, None


class ChildLog:
    """Logs the output of the processes of the model `name`; `log_file` holds all of it. Runs on the loop.

    The owner sets `is_up` while the model is ready: engines print a dozen warnings at each start and end.
    """

    def __init__(self, name: str, log_file: Path) -> None:
        self._name = name
        self._log_file = log_file
        self.is_up = False
        self._minute_s = -math.inf
        self._record_count = 0
        self._open: _Record | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take(self, text: str) -> None:
        """Log one line, or hold it for a moment where more lines may belong to it."""
        line = _read(text)
        if self._open is not None and _belongs(line, self._open):
            _add(line, self._open)
        elif (line.level or 0) >= logging.WARNING or _TRACEBACK.match(line.body):
            self.close()
            self._open = _Record()
            _add(line, self._open)
            self._timer = asyncio.get_running_loop().call_later(_RECORD_TIMEOUT_S, self.close)
        else:
            # Lines below a warning are in the log file; here they are debug output.
            self._emit(logging.DEBUG, line.text, line.request_id)

    def close(self) -> None:
        """Log the record that is held."""
        record, self._open = self._open, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if record is None:
            return
        first = record.lines[0]
        message = first.text
        if record.exception and _TRACEBACK.match(first.body):
            message = first.head + record.exception
        elif record.exception:
            message = f"{first.text}: {record.exception}"
        text = "\n".join(line.body for line in record.lines) if record.lines[1:] else None
        ids = (line.request_id for line in record.lines)
        if self._within_rate():
            self._emit(first.level or logging.ERROR, message, next(filter(None, ids), None), text)

    def _within_rate(self) -> bool:
        """Count a record; beyond the rate, records are in the log file only, which one warning says."""
        now_s = time.monotonic()
        if now_s - self._minute_s > 60:
            self._minute_s, self._record_count = now_s, 0
        self._record_count += 1
        if self._record_count == _MAX_RECORDS_A_MINUTE + 1:
            self._emit(
                logging.WARNING,
                f"more than {_MAX_RECORDS_A_MINUTE} warnings within a minute; the others are in its log file",
                None,
            )
        return self._record_count <= _MAX_RECORDS_A_MINUTE

    def _emit(self, level: int, message: str, request_id: str | None, text: str | None = None) -> None:
        fields = {"model": self._name, "source": "model", "request_id": request_id, "exception": text}
        _log.log(level, "%s", message, extra={**fields, "log_file": str(self._log_file), "is_up": self.is_up})


def _read(text: str) -> _Line:
    text, request_id = split_request_id(_CONTROL.sub("", text))
    for pattern in _HEADS:
        if match := pattern.match(text):
            fields = match.groupdict()
            level = _LETTERS.get(fields.get("letter") or "") or fields["level"].upper()
            number = logging.getLevelNamesMapping()[level]
            return _Line(match.group(), text[match.end() :], number, fields.get("speaker"), request_id)
    return _Line("", text, None, None, request_id)


def _belongs(line: _Line, record: _Record) -> bool:
    first = record.lines[0]
    if len(record.lines) >= _MAX_LINES or (line.request_id and line.request_id != first.request_id):
        return False
    if line.level is not None:
        # vLLM's loggers repeat the head before each line of one text.
        return line.speaker is not None and line.head.rstrip() == first.head.rstrip()
    if line.request_id:
        return True  # each line of the text has the id
    if _TRACEBACK.match(line.body):
        return not record.traceback or bool(_LINK.match(_last_text(record)))
    if not record.traceback:
        return False
    indented = line.body[:1] in ("", " ", "\t", "|")
    return indented or bool(_LINK.match(line.body)) or _is_exception(line, record)


def _add(line: _Line, record: _Record) -> None:
    if _is_exception(line, record):
        record.exception = line.body
    record.traceback = record.traceback or bool(_TRACEBACK.match(line.body))
    record.lines.append(line)


def _is_exception(line: _Line, record: _Record) -> bool:
    """Whether this is the line of a traceback that names the exception: the first one after the frames."""
    after_frames = record.traceback and record.lines[-1].body[:1] in (" ", "\t")
    return after_frames and bool(_EXCEPTION.match(line.body))


def _last_text(record: _Record) -> str:
    return next((line.body for line in reversed(record.lines) if line.body.strip()), "")
