"""The declaration: a running platform is brought to what its recipe, or another one, says.

A change is planned first: the settings are read and checked as for a start, and compared with what runs. A plan is
carried out as a whole, one at a time; where a required model does not start, or anything else fails, what was done is
undone. Nothing of it is stored: the next start reads the recipes of its command line.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.difference import Change, Difference, difference
from configs.errors import SettingsError, UserError
from configs.layer import SECRET_ORIGIN
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from configs.shape import TreePath
from servers.gateway.keys import Keyring
from servers.models.start import StartError
from servers.platform.files import Stamps, stamps
from servers.platform.plan import Outcome, Plan, describe, in_force, is_at_once, is_replaced
from servers.platform.steps import Steps, Subject
from servers.platform.targets import check

_log = logging.getLogger("litport.platform")

Read = Callable[[Sequence[Path]], LoadedSettings]


class Declaration:
    """Plans and carries out changes of one platform, which runs by these settings and keys.

    `read` reads the recipes that it gets, or where it gets none those of the start, under the start's command line.
    `turn` is held while models are changed.
    """

    def __init__(
        self, platform: Subject, settings: LitportSettings, keyring: Keyring, read: Read, turn: asyncio.Lock
    ) -> None:
        self._platform = platform
        self._settings = settings
        self._keyring = keyring
        self._read = read
        self._secrets: frozenset[TreePath] = frozenset()
        self._stamps: dict[str, Stamps] = {name: stamps(model) for name, model in settings.models.items()}
        self._revision = 0
        self._turn = turn
        self._work: set[asyncio.Task[Outcome]] = set()
        self._is_over = False

    @property
    def files(self) -> list[Path]:
        """The files that the settings in force name."""
        keys_file = self._settings.auth.keys_file
        return [*(file for files in self._stamps.values() for file in files), *([keys_file] if keys_file else [])]

    async def plan(self, recipes: Sequence[Path] = ()) -> Plan:
        """Read and check the recipes, and compare them with what runs. Raises UserError for what would not start."""
        loaded = await asyncio.to_thread(self._load, recipes)
        update, running = loaded.settings, self._running()
        keyring = self._keyring.read_again(update.auth)
        if problems := keyring.unknown_models(update.granted_names):
            raise SettingsError(tuple(problems))
        if keyring.empty and not self._keyring.empty:
            raise UserError("auth: the last key is gone, and with none anybody could call; restart if that is meant")
        self._secrets |= {path for path, origin in loaded.origins.items() if origin.startswith(SECRET_ORIGIN)}
        changes = _with_files(difference(running, update, self._is_secret), self._stamps, update)
        key_changes = self._keyring.changes_to(keyring)
        lines = tuple(describe(changes, key_changes, self._platform.models, update))
        return Plan(self._revision, running, in_force(running, update), keyring, changes, key_changes, lines)

    async def apply(self, plan: Plan, who: str) -> Outcome:
        """Carry out a plan.

        Cancelling it does not stop the work. Raises UserError where another change goes on, for a plan that is out of
        date, and where what was done is undone since a required model did not start, or anything else failed.
        """
        if self._is_over:
            raise UserError("the platform is shutting down")
        if self._turn.locked():
            raise UserError("another change goes on; try again when it is over")
        return await asyncio.shield(self._begin(self._apply(plan, who)))

    def reload(self, who: str) -> "asyncio.Task[Outcome]":
        """Begin to bring the platform to what the start's recipes say, after any other change; the log tells of it."""
        return self._begin(self._reload(who))

    def end(self) -> None:
        """Begin no further change: the platform drains."""
        self._is_over = True

    async def stop(self) -> None:
        """Give up the change that goes on; what it has started is the supervisor's to end."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, Outcome]) -> "asyncio.Task[Outcome]":
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _apply(self, plan: Plan, who: str) -> Outcome:
        async with self._turn:
            return await self._carry_out(plan, who)

    async def _reload(self, who: str) -> Outcome:
        async with self._turn:
            if self._is_over:
                return Outcome()
            try:
                plan = await self.plan()
            except UserError as problem:
                _log.error("reload refused, nothing has changed: %s", problem)
                return Outcome()
            try:
                outcome = await self._carry_out(plan, who)
            except UserError as problem:
                _log.error("reload failed: %s", problem)
                return Outcome()
            restarts = [line for line in plan.lines if line.startswith("restart")]
            _log.info("reloaded (%s): %s", who, "; ".join((*outcome.results, *restarts)) or "nothing differs")
            for failure in outcome.failures:
                _log.error("%s; the rest is done", failure)
            return outcome

    def _load(self, recipes: Sequence[Path]) -> LoadedSettings:
        loaded = self._read(recipes)
        check(loaded)
        return loaded

    def _running(self) -> LitportSettings:
        models = {name: model.settings for name, model in self._platform.models.items() if not model.is_leaving}
        return self._settings.model_copy(update={"models": models})

    def _is_secret(self, path: TreePath) -> bool:
        return any(path[:length] in self._secrets for length in range(1, len(path) + 1))

    async def _carry_out(self, plan: Plan, who: str) -> Outcome:
        if (plan.revision, plan.running) != (self._revision, self._running()):
            raise UserError("the platform has changed since this plan was made; make it again")
        self._revision += 1
        before, keyring, files, processes = self._running(), self._keyring, self._stamps, self._processes()
        steps = Steps(self._platform, plan.settings, who)
        try:
            await self._change(plan.settings, plan.keyring, plan.difference, steps)
        except StartError as problem:
            _log.error("a change is undone: %s", problem)
            await self._undo(before, keyring, processes, who, str(problem))
        except Exception as problem:
            _log.exception("a change has failed in its midst, and is undone")
            await self._undo(before, keyring, processes, who, f"the platform failed at it ({_name(problem)})")
        finally:  # what runs as before has read its files before
            same = [name for name, now in self._processes().items() if processes.get(name) == now]
            self._stamps = {**self._stamps, **{name: files[name] for name in same if name in files}}
        for name, what in plan.key_changes.items():
            steps.change_key(name, what)
        return steps.outcome

    def _processes(self) -> dict[str, tuple[Any, ...]]:
        """What runs for each model now."""
        models = self._platform.models.items()
        return {name: (model, *(instance.group_id for instance in model.instances)) for name, model in models}

    async def _undo(
        self, before: LitportSettings, keyring: Keyring, processes: Mapping[str, Any], who: str, cause: str
    ) -> None:
        """Bring everything back to these settings, also where a step of that fails. Raises UserError, always."""
        changes = difference(self._running(), before)
        now = self._processes()
        lost = [name for name, model in self._platform.models.items() if model.residence.failure]
        lost = [name for name in lost if name in before.models and name not in changes.changed]
        lost = [name for name in lost if processes.get(name) != now[name]]
        steps = Steps(self._platform, before, f"{who} (undoing)")
        try:
            await self._change(before, keyring, changes, steps, goes_on=True)
        except Exception as problem:
            if not isinstance(problem, StartError):
                _log.exception("a change could not be undone")
            raise UserError(f"{cause}; and it could not be undone: {problem}") from None
        if failures := steps.outcome.failures:
            raise UserError(f"{cause}; and not all of it could be undone: {'; '.join(failures)}")
        if lost:
            raise UserError(f"{cause}; as a file of {', '.join(lost)} has changed, its last version cannot come back")
        raise UserError(f"{cause}; what had been done is undone")

    async def _change(
        self, settings: LitportSettings, keyring: Keyring, changes: Difference, steps: Steps, goes_on: bool = False
    ) -> None:
        """Bring what runs to these settings.

        Raises the first failure, StartError for a required model that does not start; with `goes_on` it does the rest
        before that.
        """
        self._settings, self._keyring = settings, keyring
        self._stamps = {name: stamps(model) for name, model in settings.models.items()}
        self._platform.reload(settings, keyring)
        problems: list[BaseException] = []
        for together in self._phases(changes, steps):
            outcomes = await asyncio.gather(*together, return_exceptions=True)
            problems += [outcome for outcome in outcomes if outcome is not None]
            if problems and not goes_on:
                break
        for problem in problems:
            raise problem

    def _phases(self, changes: Difference, steps: Steps) -> Iterator[list[Coroutine[Any, Any, None]]]:
        """The steps of a change, one phase after the other; those of one may be taken together."""
        models, update = self._platform.models, self._settings.models
        replaced = [name for name, parts in changes.changed.items() if is_replaced(parts, models[name], update[name])]
        for change in filter(is_at_once, changes.sections):
            steps.set(change)
        for name, parts in changes.changed.items():
            if name not in replaced:
                yield [steps.adopt(name, parts)]
        yield [*map(steps.remove, changes.removed)]
        for name in replaced:
            yield [steps.replace(name, changes.changed[name])]
        for old, new in changes.renamed.items():
            yield [steps.rename(old, new)]
        yield [*map(steps.add, changes.added)]


def _name(problem: Exception) -> str:
    """What has failed, for a line of a message; the log has the rest."""
    return f"{type(problem).__name__}: {problem}"


def _with_files(changes: Difference, before: Mapping[str, Stamps], update: LitportSettings) -> Difference:
    """The same with the models whose files have changed."""
    changed = dict(changes.changed)
    for name, files in before.items():
        if name not in update.models:
            continue
        now = stamps(update.models[name])
        for file in now.keys() & files.keys():
            if now[file] != files[file]:
                path = ("models", name, "file")
                changed[name] = (*changed.get(name, ()), Change(path, _text(file, files), _text(file, now)))
    return replace(changes, changed=changed)


def _text(file: Path, files: Stamps) -> str:
    stamp = files[file]
    if stamp is None:
        return f"{file}, not there"
    return f"{file} of {time.strftime('%H:%M:%S', time.localtime(stamp[0] / 1e9))}, {stamp[1]} bytes"
