"""The steps of a change: each changes one model, and has a line in the audit log and one for the person who asked."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from configs.difference import Change
from configs.settings import LitportSettings
from servers.gateway.keys import Keyring
from servers.models.instance import State
from servers.models.model import Model
from servers.models.roster import Roster
from servers.models.start import StartError
from servers.platform.factory import ModelFactory
from servers.platform.plan import Outcome, is_in_place


class Subject(Protocol):
    """What changes of a platform."""

    @property
    def models(self) -> Mapping[str, Model]:
        """Its models by name."""
        ...

    @property
    def roster(self) -> Roster:
        """What changes them."""
        ...

    @property
    def factory(self) -> ModelFactory:
        """What makes new ones."""
        ...

    def reload(self, settings: LitportSettings, keyring: Keyring) -> None:
        """Apply the keys, and the settings outside of the models."""
        ...

    def audit(self, **fields: Any) -> None:
        """Write a line of the audit log."""
        ...

    def forget(self, name: str) -> None:
        """Drop the series of a model that is gone."""
        ...


class Steps:
    """Changes models of a platform to those of `settings`.

    A step raises StartError where a required model does not start.
    """

    def __init__(self, platform: Subject, settings: LitportSettings, who: str) -> None:
        self._platform = platform
        self._settings = settings
        self._who = who
        self._results: list[str] = []
        self._failures: list[str] = []

    @property
    def outcome(self) -> Outcome:
        """What the steps so far have come to."""
        return Outcome(tuple(self._results), tuple(self._failures))

    def set(self, change: Change) -> None:
        """Note a change outside of the models, which is in force."""
        self._results.append(f"set {change}")
        self._audit(change="set", setting=".".join(change.path), **_values([change]))

    def change_key(self, name: str, what: str) -> None:
        """Note another key, which is in force."""
        self._results.append(f"key {name}: {what}")
        self._audit(change="key", key=name, to=what)

    async def adopt(self, name: str, changes: Sequence[Change]) -> None:
        """Give a model settings that want no new processes."""
        await self._do("change", name, name, self._adopt(name, changes), _values(changes))

    async def remove(self, name: str) -> None:
        """End a model."""
        await self._do("remove", name, name, self._platform.roster.remove(self._platform.models[name]))
        self._platform.forget(name)

    async def replace(self, name: str, changes: Sequence[Change]) -> None:
        """Replace a model by one with other settings."""
        model = self._platform.factory.make(self._settings, name)
        work = self._platform.roster.replace(self._platform.models[name], model)
        await self._do("replace", name, name, work, _values(changes))

    async def rename(self, old: str, new: str) -> None:
        """Replace a model by one of another name."""
        model = self._platform.factory.make(self._settings, new)
        work = self._platform.roster.replace(self._platform.models[old], model)
        await self._do("rename", old, new, work, {"from": {"name": old}, "to": {"name": new}})
        if old not in self._platform.models:
            self._platform.forget(old)

    async def add(self, name: str) -> None:
        """Offer a new model."""
        model = self._platform.factory.make(self._settings, name)
        await self._do("add", name, name, self._platform.roster.add(model))

    async def _adopt(self, name: str, changes: Sequence[Change]) -> None:
        model, settings = self._platform.models[name], self._settings.models[name]
        if not is_in_place(changes, model):
            await self._platform.roster.adapt(model, settings)
        model.adopt(settings)
        if any(change.path[2:] == ("load",) for change in changes):
            await self._platform.roster.load(model)

    async def _do(
        self,
        change: str,
        old: str,
        new: str,
        work: Coroutine[Any, Any, None],
        values: Mapping[str, Mapping[str, str] | None] | None = None,
    ) -> None:
        begin_s = time.monotonic()
        before, cause = self._state(old), None
        try:
            await work
        except StartError as problem:
            cause = str(problem)
        except asyncio.CancelledError:
            cause = "the platform ended"
            raise
        except Exception as problem:
            cause = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            duration_s = round(time.monotonic() - begin_s, 4)
            state = {"before": before, "state": self._state(new), "error": cause, "duration_s": duration_s}
            self._audit(change=change, model=new, **state, **(values or {"from": None, "to": None}))
        label = new if old == new else f"{old} to {new}"
        if cause is None:
            self._results.append(f"{change} {label}: {self._state(new) or 'gone'} after {duration_s:.1f} s")
            return
        result = "could not be changed" if change == "change" else "could not be started"
        if self._settings.models[new].required:
            raise StartError(f"{new} {result}: {cause}")
        goes_on = change in ("replace", "rename") and self._state(old) in (State.READY, State.ASLEEP, State.UNLOADED)
        rest = f" ({old} goes on as it was)" if goes_on else ""
        self._failures.append(f"{new} {result}{rest}: {cause}")

    def _state(self, name: str) -> str | None:
        model = self._platform.models.get(name)
        return None if model is None else model.state.value

    def _audit(self, **fields: Any) -> None:
        self._platform.audit(request_id=None, who=self._who, **fields)


def _values(changes: Sequence[Change]) -> dict[str, Any]:
    """The settings that change, with their values before and after."""
    names = {".".join(change.path): change for change in changes}
    return {
        "from": {name: change.before for name, change in names.items()},
        "to": {name: change.after for name, change in names.items()},
    }
