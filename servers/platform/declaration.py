"""The declaration: a running platform is brought to what its recipe, or another one, says.

A change is planned first: the settings are read and checked as for a start, and compared with what runs. A plan is
carried out as a whole, one at a time; where a required model does not start, what was done is undone. Nothing of it is
stored: the next start reads the recipes of its command line.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
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
from servers.platform.plan import Plan, describe, in_force, is_at_once, is_replaced
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
        self._work: set[asyncio.Task[list[str]]] = set()
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
        return Plan(self._revision, in_force(running, update), keyring, changes, key_changes, lines)

    async def apply(self, plan: Plan, who: str) -> list[str]:
        """Carry out a plan, and return a line for each thing done.

        Cancelling it does not stop the work. Raises UserError where another change goes on, for a plan that is out of
        date, and where a required model did not start.
        """
        if self._is_over:
            raise UserError("the platform is shutting down")
        if self._turn.locked():
            raise UserError("another change goes on; try again when it is over")
        return await asyncio.shield(self._begin(self._apply(plan, who)))

    def reload(self, who: str) -> "asyncio.Task[list[str]]":
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

    def _begin(self, work: Coroutine[Any, Any, list[str]]) -> "asyncio.Task[list[str]]":
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _apply(self, plan: Plan, who: str) -> list[str]:
        async with self._turn:
            return await self._carry_out(plan, who)

    async def _reload(self, who: str) -> list[str]:
        async with self._turn:
            if self._is_over:
                return []
            try:
                plan = await self.plan()
            except UserError as problem:
                _log.error("reload refused, nothing has changed: %s", problem)
                return []
            try:
                results = await self._carry_out(plan, who)
            except UserError as problem:
                _log.error("reload failed: %s", problem)
                return []
            except Exception:  # at a signal nobody awaits it
                _log.exception("reload failed in its midst")
                return []
            restarts = [line for line in plan.lines if line.startswith("restart")]
            _log.info("reloaded (%s): %s", who, "; ".join((*results, *restarts)) or "nothing differs")
            return results

    def _load(self, recipes: Sequence[Path]) -> LoadedSettings:
        loaded = self._read(recipes)
        check(loaded)
        return loaded

    def _running(self) -> LitportSettings:
        models = {name: model.settings for name, model in self._platform.models.items() if not model.is_leaving}
        return self._settings.model_copy(update={"models": models})

    def _is_secret(self, path: TreePath) -> bool:
        return any(path[:length] in self._secrets for length in range(1, len(path) + 1))

    async def _carry_out(self, plan: Plan, who: str) -> list[str]:
        if plan.revision != self._revision:
            raise UserError("the platform has changed since this plan was made; make it again")
        self._revision += 1
        before, keyring = self._running(), self._keyring
        results: list[str] = []
        steps = Steps(self._platform, plan.settings, who, results)
        try:
            await self._change(plan.settings, plan.keyring, plan.difference, steps)
        except StartError as problem:
            _log.error("a change is undone: %s", problem)
            await self._undo(before, keyring, who, str(problem), plan.difference.changed)
        for name, what in plan.key_changes.items():
            steps.change_key(name, what)
        return results

    async def _undo(
        self, before: LitportSettings, keyring: Keyring, who: str, cause: str, replaced: Collection[str]
    ) -> None:
        """Bring everything back to these settings. Raises UserError, always."""
        changes = difference(self._running(), before)
        lost = [name for name, model in self._platform.models.items() if model.residence.failure]
        lost = [name for name in lost if name in replaced and name not in changes.changed]
        try:
            await self._change(before, keyring, changes, Steps(self._platform, before, f"{who} (undoing)", []))
        except StartError as problem:
            raise UserError(f"{cause}; and it could not be undone: {problem}") from None
        if lost:
            raise UserError(f"{cause}; as a file of {', '.join(lost)} has changed, its last version cannot come back")
        raise UserError(f"{cause}; what had been done is undone")

    async def _change(self, settings: LitportSettings, keyring: Keyring, changes: Difference, steps: Steps) -> None:
        """Bring what runs to these settings. Raises StartError where a required model does not start."""
        models = self._platform.models
        replaced = [name for name, parts in changes.changed.items() if is_replaced(parts, models[name])]
        self._settings, self._keyring = settings, keyring
        self._stamps = {name: stamps(model) for name, model in settings.models.items()}
        self._platform.reload(settings, keyring)
        for change in filter(is_at_once, changes.sections):
            steps.set(change)
        for name, parts in changes.changed.items():
            if name not in replaced:
                await steps.adopt(name, parts)
        await asyncio.gather(*map(steps.remove, changes.removed))
        for name in replaced:
            await steps.replace(name, changes.changed[name])
        for old, new in changes.renamed.items():
            await steps.rename(old, new)
        outcomes = await asyncio.gather(*map(steps.add, changes.added), return_exceptions=True)
        for problem in filter(None, outcomes):
            raise problem


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
