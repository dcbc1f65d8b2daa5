"""What a person sees while models come up: a live table on a terminal, one line a step elsewhere.

It shows states and times that were measured, and at the end the address and a request to try. It changes nothing.
"""

import logging
import re
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from servers.models.model import Model, State

if TYPE_CHECKING:
    from servers.models.supervisor import Supervisor

_log = logging.getLogger("litport.progress")
_COLOURS = {State.READY: "green", State.FAILED: "red", State.PULLING: "cyan", State.STARTING: "yellow"}


class Progress:
    """Shows every step of every model; a context manager, because a live table must be taken down again."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._console = Console(stderr=True)
        self._supervisor: Supervisor | None = None
        self._begin = time.perf_counter()
        self._said: dict[str, tuple[State, str]] = {}
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
        """A model has made a step."""
        if self._live is None:
            self._say(model)
        if self._supervisor and self._supervisor.settled and not self._announced:
            self._announced = True
            self._end_table()
            self._announce(self._supervisor)

    def _say(self, model: Model) -> None:
        step = (model.state, re.sub(r"\d+ MB", "", model.detail))  # the bytes of a pull change all the time
        if self._said.get(model.name) == step:
            return
        self._said[model.name] = step
        words = f"{model.name}: {model.state.value} {model.detail}".rstrip()
        if model.state is State.READY:
            words += " (" + ", ".join(f"{phase} {spent_s:.1f} s" for phase, spent_s in model.phases_s.items()) + ")"
        level = logging.ERROR if model.state is State.FAILED else logging.INFO
        _log.log(level, "%s", words, extra={"model": model.name})

    def _announce(self, supervisor: "Supervisor") -> None:
        ready = [model for model in supervisor.models.values() if model.state is State.READY]
        spent_s = time.perf_counter() - self._begin
        _log.info(
            "serving %d of %d models at %s after %.1f s", len(ready), len(supervisor.models), self._address, spent_s
        )
        if self._console.is_terminal:
            chatty = (model.name for model in ready if model.card and "/v1/chat/completions" in model.card.routes)
            if name := next(chatty, None):
                self._console.print(f"try: litport chat {name} --url {self._address}", highlight=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        assert self._supervisor is not None
        for model in self._supervisor.models.values():
            colour = _COLOURS.get(model.state, "white")
            spent = f"{time.time() - model.since:.0f} s"
            if model.state is State.READY:
                spent = f"{sum(model.phases_s.values()):.1f} s"
            table.add_row(model.name, f"[{colour}]{model.state.value}[/]", spent, model.detail)
        return table

    def _end_table(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
