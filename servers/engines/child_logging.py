"""Log lines of a model's processes that say which requests they are about: they end in ` request_id=<ids>`.

Every record has the attribute `request_id` (ids separated by commas, "" where there is no request), for formats of a
plug-in's own. Handlers that the engine, uvicorn or a plain `logging.basicConfig()` made put it at the end of their
lines; one that anybody gave a format of their own is left alone.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

_LOGGERS = ("", "litserve", "vllm", "uvicorn", "uvicorn.error")
_PLAIN_FORMATS = {"%(message)s", logging.BASIC_FORMAT}
_PLAIN_MODULES = ("uvicorn.", "vllm.")

_ids: Callable[[], str] = str


def tell(ids: Callable[[], str], plain_format: str = logging.BASIC_FORMAT) -> None:
    """From now on, in this process, ask `ids` for the requests that the thread or task works on.

    `plain_format` is that of the engine's own handlers.
    """
    global _ids
    _ids = ids
    _PLAIN_FORMATS.add(plain_format)
    made_by = logging.getLogRecordFactory()

    def make(*args: Any, **options: Any) -> logging.LogRecord:
        record = made_by(*args, **options)
        if type(record) is logging.LogRecord:
            record.__class__ = _Record
            record.__dict__["_ids"] = ids()
        return record

    logging.setLogRecordFactory(make)
    # What is logged where nobody has set up logging: until now the bare message of warnings.
    last = logging.StreamHandler(sys.stderr)
    last.setLevel(logging.WARNING)
    last.setFormatter(_WithId(logging.Formatter(logging.BASIC_FORMAT)))
    logging.lastResort = last
    mark_handlers()


def mark_handlers() -> None:
    """Put the ids at the end of the lines of all handlers that are plain; call it again once there may be more."""
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if _is_plain(handler):
                handler.setFormatter(_WithId(handler.formatter or logging.Formatter()))


class _Record(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 # logging's
        # Not earlier: logging refuses a plug-in's own `extra={"request_id": ...}` where the record has one.
        self.__dict__.setdefault("request_id", self.__dict__["_ids"])
        return super().getMessage()


class _WithId(logging.Formatter):
    """Another formatter's lines, each with the ids at its end, so that those of a traceback can be told, too."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        text = self._formatter.format(record)
        ids = record.__dict__["request_id"] if "request_id" in record.__dict__ else _ids()
        if not ids:
            return text
        return "\n".join(f"{line} request_id={ids}" if line.strip() else line for line in text.split("\n"))


def _is_plain(handler: logging.Handler) -> bool:
    if type(handler) is not logging.StreamHandler:
        return False
    formatter = handler.formatter
    if formatter is None or type(formatter).__module__.startswith(_PLAIN_MODULES):
        return True
    return type(formatter) is logging.Formatter and formatter._fmt in _PLAIN_FORMATS
