"""What APIs give to `LitAPI.log`, on its way from the workers to LitServe's loggers in the main process."""

import logging
import threading
from multiprocessing.context import SpawnContext
from multiprocessing.queues import Queue
from typing import Any, TypeAlias

_log = logging.getLogger("litport.worker")
_END_TIMEOUT_S = 5.0

Entries: TypeAlias = "Queue[tuple[str, Any] | None]"


class LogEntries(threading.Thread):
    """Gives each entry of `queue` to all loggers, in a thread of its own."""

    def __init__(self, loggers: list[Any], context: SpawnContext) -> None:
        super().__init__(name="loggers", daemon=True)
        self.queue: Entries = context.Queue()
        self._loggers = loggers

    def run(self) -> None:
        """Until None comes."""
        while (entry := self.queue.get()) is not None:
            for logger in self._loggers:
                try:
                    logger.process(*entry)
                except Exception:  # the logger's own
                    _log.exception("%s.process failed", type(logger).__name__)

    def end(self) -> None:
        """Wait a while for the last entries; no worker is left."""
        self.queue.put(None)
        self.join(_END_TIMEOUT_S)
