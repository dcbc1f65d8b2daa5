"""Log lines on standard error: text for people, or one JSON object a line for machines.

Every logger of Litport is below `litport`; other libraries log warnings and errors only. A line about a model or a
request carries their names as fields: `extra={"model": ..., "request_id": ...}`. Lines hold no request content and no
keys.
"""

import json
import logging
import sys
import time

from configs.settings import Telemetry

_FIELDS = ("source", "model", "request_id", "exception")


def configure(settings: Telemetry) -> None:
    """Set up logging for this process; called once, by the command line."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler = _StandardError()
    handler.setFormatter(_JsonLines() if as_json else _TextLines())
    if not as_json and settings.log_level != "debug":
        handler.addFilter(_is_for_people)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(as_json)
    logging.getLogger("litport").setLevel(settings.log_level.upper())
    # uvicorn reports an answer that the front door breaks off on purpose ("ASGI callable returned without ...").
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


class _StandardError(logging.StreamHandler):  # type: ignore[type-arg] # not subscriptable at run time
    """Writes to the current standard error, which is the live table's while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _is_for_people(record: logging.LogRecord) -> bool:
    """False for the warnings of engines at each start and end, which are in the model's log file."""
    return record.levelno >= logging.ERROR or bool(record.__dict__.get("is_up", True))


class _TextLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # logging's
        fields, message = record.__dict__, record.message
        request_id, newlines = fields.get("request_id"), (fields.get("exception") or "").count("\n")
        if fields.get("source") == "model":
            record.message = f"[{fields['model']}] {message}"
        if newlines:
            record.message += f" ({newlines + 1} lines in {fields['log_file']})"
        if request_id and request_id not in message:
            record.message += f" (request {request_id})"
        return super().formatMessage(record)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: value for name in _FIELDS if (value := record.__dict__.get(name)) is not None})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
