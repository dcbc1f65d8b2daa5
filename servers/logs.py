"""Log lines on standard error: words for people, or one JSON object a line for machines.

Every logger of ours stands under `litport`; other libraries are heard from warnings on. No request content, no keys.
"""

import json
import logging
import sys
import time

from configs.settings import Telemetry


def configure(settings: Telemetry) -> None:
    """Set up logging for this process; called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_JsonLines() if as_json else _Words())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("litport").setLevel(settings.log_level.upper())
    # Says "ASGI callable returned without completing response" when an answer is broken off, which is on purpose.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


class _Words(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
