"""Log lines of a model's processes that name the requests they are about: they end in ` request_id=<ids>`.

Every record has the attribute `request_id` (ids separated by commas, "" where there is no request), for formats of a
plug-in's own. Handlers that the engine, uvicorn or a plain `logging.basicConfig()` made put it at the end of their
lines; a handler with any other format is left alone.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any

_LOGGERS = ("", "litserve", "vllm", "uvicorn", "uvicorn.error")
_PLAIN_FORMATS = {"%(message)s", logging.BASIC_FORMAT}
_PLAIN_MODULES = ("uvicorn.", "vllm.")

_request_ids: Callable[[], str] = str


def install(request_ids: Callable[[], str], plain_format: str = logging.BASIC_FORMAT) -> None:
    """From now on in this process, `request_ids` names the requests that a thread or task works on.

    `plain_format` is that of the engine's own handlers.
    """
    global _request_ids
    _request_ids = request_ids
    _PLAIN_FORMATS.add(plain_format)
    factory = logging.getLogRecordFactory()

    def make_record(*args: Any, **options: Any) -> logging.LogRecord:
        record = factory(*args, **options)
        if type(record) is logging.LogRecord:
            record.__class__ = _Record
            record.__dict__["_request_ids"] = request_ids()
        return record

    logging.setLogRecordFactory(make_record)
    # For lines where nobody has set up logging; Python's own last resort prints the bare message of warnings.
    last_resort = logging.StreamHandler(sys.stderr)
    last_resort.setLevel(logging.WARNING)
    last_resort.setFormatter(_IdFormatter(logging.Formatter(logging.BASIC_FORMAT)))
    logging.lastResort = last_resort
    mark_handlers()


def mark_handlers() -> None:
    """Put the ids at the end of the lines of all plain handlers; call it again once there may be more handlers."""
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if _is_plain(handler):
                handler.setFormatter(_IdFormatter(handler.formatter or logging.Formatter()))


class _Record(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 # logging's
        # Not earlier: logging rejects a plug-in's own `extra={"request_id": ...}` where the record has one.
        self.__dict__.setdefault("request_id", self.__dict__["_request_ids"])
        return super().getMessage()


class _IdFormatter(logging.Formatter):
    """Another formatter's lines, each with the ids at its end, those of a traceback too."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        text = self._formatter.format(record)
        ids = record.__dict__["request_id"] if "request_id" in record.__dict__ else _request_ids()
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
