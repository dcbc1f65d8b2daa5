"""The progress of the start for a person: a live table on a terminal, one line a step elsewhere.

When all models are up it prints the address and a command to try.
"""

import logging
import re
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from servers.models.instance import State
from servers.models.model import Model

if TYPE_CHECKING:
    from servers.models.supervisor import Supervisor

_log = logging.getLogger("litport.progress")
_COLOURS = {State.READY: "green", State.FAILED: "red", State.PULLING: "cyan", State.STARTING: "yellow"}


class Progress:
    """Shows every step of every model; a context manager, since it must take down the live table."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._console = Console(stderr=True)
        self._supervisor: Supervisor | None = None
        self._begin_s = time.perf_counter()
        self._last_steps: dict[str, tuple[State, str]] = {}
        self._live: Live | None = None
        self._announced = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_table()

    def watch(self, supervisor: "Supervisor") -> None:
        """Begin to show the models of this supervisor."""
        self._supervisor = supervisor
        if sys.stderr.isatty():
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4)
            self._live.start()

    def changed(self, model: Model) -> None:
        """Show a step of a model."""
        if self._live is None:
            self._log(model)
        if self._supervisor and self._supervisor.settled and not self._announced:
            self._announced = True
            self._end_table()
            self._announce(self._supervisor)

    def _log(self, model: Model) -> None:
        instance = model.choose()
        step = (instance.state, re.sub(r"\d+ MB", "", instance.detail))  # the bytes of a pull change all the time
        if self._last_steps.get(model.label) == step:
            return
        self._last_steps[model.label] = step
        line = ": ".join(filter(None, (model.label, instance.state.value, instance.detail)))
        if instance.state is State.READY:
            line += " (" + ", ".join(f"{phase} {phase_s:.1f} s" for phase, phase_s in instance.phases_s.items()) + ")"
        level = logging.ERROR if instance.state is State.FAILED else logging.INFO
        is_away = instance.state is State.STARTING and instance.address is not None and instance.failures > 0
        if is_away or (instance.state is State.UNLOADED and instance.detail):  # a load has failed
            level = logging.WARNING
        _log.log(level, "%s", line, extra={"model": model.name})

    def _announce(self, supervisor: "Supervisor") -> None:
        if supervisor.fatal.is_set():
            return  # it ends
        ready = [model for model in supervisor.models.values() if model.takes_requests]
        start_s = time.perf_counter() - self._begin_s
        message = "serving %d of %d models at %s after %.1f s"
        _log.info(message, len(ready), len(supervisor.models), self._address, start_s)
        if self._console.is_terminal:
            chat_models = (model.name for model in ready if model.card and "/v1/chat/completions" in model.card.routes)
            if name := next(chat_models, None):
                self._console.print(f"try: litport chat {name} --url {self._address}", highlight=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        assert self._supervisor is not None
        for model in self._supervisor.all_models:
            instance = model.choose()
            colour = _COLOURS.get(instance.state, "white")
            step_s = f"{time.time() - instance.since:.0f} s"
            if instance.state is State.READY:
                step_s = f"{sum(instance.phases_s.values()):.1f} s"
            table.add_row(model.label, f"[{colour}]{instance.state.value}[/]", step_s, escape(instance.detail))
        return table

    def _end_table(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
