"""The audit log: one JSON line a request, as evidence of who used what, and one a change.

Time, request id, key name, client address, model, path, status, tokens and seconds; unknown is null. A command that
changes a model has a line, too, without a request id. The log never holds a prompt, an answer or a key. When the disk
is full, lines are lost and the log says so once; requests go on.
"""

import contextlib
import json
import logging
import os
import time
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from configs.errors import UserError

_log = logging.getLogger("litport.gateway")


def check_audit_file(file: Path) -> None:
    """Raises UserError for a file that could not be written; nothing is made."""
    place = next(path for path in (file, *file.absolute().parents) if path.exists())
    if file.is_dir() or not (file.exists() or place.is_dir()) or not os.access(place, os.W_OK):
        raise UserError(f"telemetry.audit_file: cannot write {file}; expected a file in a folder that can be written")


class Audit:
    """Appends to `file`, and opens it again when logrotate has moved it; does nothing when `file` is None."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._handler: WatchedFileHandler | None = None
        self._failed = False
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._handler = WatchedFileHandler(file, encoding="utf-8")
            except OSError as problem:
                raise UserError(f"telemetry.audit_file: cannot write {file}: {problem.strerror}") from None

    @property
    def is_on(self) -> bool:
        """Whether lines go anywhere."""
        return self._handler is not None

    def close(self) -> None:
        """Close the file."""
        if self._handler:
            with contextlib.suppress(OSError):  # a full disk does not take the last line either
                self._handler.close()

    def write(self, **fields: Any) -> None:
        """Add one line; `time` is set here, in UTC."""
        if self._handler is None:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = json.dumps({"time": stamp, **fields})
        try:
            self._handler.reopenIfNeeded()
            if self._handler.stream is None:  # it could not be opened the last time
                self._handler = WatchedFileHandler(self._handler.baseFilename, encoding="utf-8")
            assert self._handler.stream is not None
            self._handler.stream.write(line + "\n")
            self._handler.flush()
            self._failed = False
        except OSError as problem:
            if not self._failed:
                _log.error("telemetry.audit_file: lines of %s are lost: %s", self._file, problem.strerror)
            self._failed = True
