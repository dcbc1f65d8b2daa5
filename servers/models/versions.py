"""Versions: a new version of a model takes the place of the old one, which stays for a while as the way back.

The new one starts beside the old one where the memory holds both, and is asked before any caller is. Requests move in
one assignment, `Roster.take_over`: those that the old version has are answered by it. A new version that does not
start, answers a check wrongly or is worse than the old one is ended, and the old one goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from servers.models import comparison
from servers.models.inspection import question_of
from servers.models.instance import State
from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.question import Question
from servers.models.roster import Roster
from servers.models.start import NoRoomError, StartError
from servers.models.trial import Limits, SwapError, SwapResult, Trial
from servers.processes.background import keep_up

_log = logging.getLogger("litport.versions")

_POLL_S = 0.1
# How many pairs of answers are taken, at least, before a version that seems too slow by chance is let through.
_MOST_PAIRS = 32

Tell = Callable[[str, Model, Model, str], None]
"""Is told each step of a change, from which version to which, and what came of it."""


@dataclass(frozen=True)
class Plan:
    """How a new version takes over.

    With `allows_gap` the old one may end before the new one starts. `compare` is how many requests both are asked, and
    `questions` are those that are asked where the last ones are not kept. `steps` are the percentages of the requests
    that go to the new one, each for `every_s` seconds; 100 alone moves them at once.
    """

    allows_gap: bool = False
    compare: int = 0
    steps: tuple[int, ...] = (100,)
    every_s: float = 60.0
    limits: Limits = field(default_factory=Limits)
    questions: tuple[Question, ...] = ()


class Versions:
    """Changes the versions of the models of one roster; callers see to it that one change of a name goes on."""

    def __init__(self, loader: Loader, roster: Roster) -> None:
        self._loader = loader
        self._roster = roster
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._ends: set[asyncio.Task[None]] = set()

    async def swap(self, old: Model, new: Model, plan: Plan, tell: Tell) -> None:
        """Let a new version take over, and return once it has all requests. Raises SwapError; the old one goes on."""
        self._roster.number(new)
        try:
            await self._swap(old, new, plan, tell)
        except (StartError, SwapError) as problem:
            result: SwapResult = "refused" if old.trial is None else "rolled_back"
            old.trial = None
            old.swaps[result] += 1
            tell(result, old, new, str(problem))
            await self._roster.remove(new)
            raise SwapError(f"{new.version} of {old.name} is not served: {problem}; {old.version} goes on") from None
        except Exception:
            await self._roster.remove(new)
            raise
        finally:
            old.trial = None

    async def rollback(self, current: Model, tell: Tell) -> None:
        """Let the version before take over again, at once where it is in memory still. Raises SwapError."""
        before = current.previous
        if before is None:
            raise SwapError(f"{current.name} has no version before {current.version}")
        if before.state is not State.READY:
            tell("start", current, before, f"{before.version} starts again")
            try:
                await self._roster.start_beside(current, before)
            except NoRoomError:
                await self._replace_in_turn(current, before, tell)
            except StartError as problem:
                await self._roster.remove(before)
                raise SwapError(f"{before.version} of {current.name} could not be started: {problem}") from None
        self._move(current, before, tell)

    async def stop(self) -> None:
        """End what watches versions; their processes are the supervisor's to end."""
        tasks = [*self._watches.values(), *self._ends]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _swap(self, old: Model, new: Model, plan: Plan, tell: Tell) -> None:
        tell("start", old, new, f"{new.version} starts beside {old.version}")
        try:
            await self._roster.start_beside(old, new)
        except NoRoomError as problem:
            if not plan.allows_gap:
                raise SwapError(f"{problem}; --allow-gap ends {old.version} first, and {_gap(old)}") from None
            await self._replace_in_turn(old, new, tell)
        if old.state is State.READY:
            if plan.compare:
                await self._compare(old, new, plan, tell)
            if plan.steps != (100,):
                await self._try_out(old, new, plan, tell)
        elif plan.compare or plan.steps != (100,):
            tell("compare", old, new, f"{old.version} is not up, so {new.version} is compared with nothing")
        self._move(old, new, tell)

    async def _replace_in_turn(self, old: Model, new: Model, tell: Tell) -> None:
        tell("gap", old, new, f"{old.version} ends before {new.version} starts; {_gap(old)}")
        await self._roster.replace_in_turn(old, new)
        await self._loader.load(new)

    async def _compare(self, old: Model, new: Model, plan: Plan, tell: Tell) -> None:
        questions = _questions(old, plan)
        if not questions:
            tell("compare", old, new, "there are no requests to compare by")
            return
        outcome = await _compare_once(old, new, questions, plan)
        tell("compare", old, new, str(outcome))
        latencies_s = outcome.latencies_s
        while (is_slower := comparison.is_slower(latencies_s, plan.limits)) is None and len(latencies_s) < _MOST_PAIRS:
            more = await _compare_once(old, new, questions, plan)
            if not more.latencies_s:
                break
            latencies_s += more.latencies_s
            tell("compare", old, new, f"{comparison.medians(latencies_s)} of {len(latencies_s)} pairs of answers")
        if is_slower:
            limit = f"{plan.limits.slowdown:g} times is the limit (--max-slowdown)"
            raise SwapError(f"{comparison.medians(latencies_s)} of {len(latencies_s)} pairs of answers, and {limit}")

    async def _try_out(self, old: Model, new: Model, plan: Plan, tell: Tell) -> None:
        """Send a share of the requests to the new version, step by step."""
        old.trial = trial = Trial(new, plan.limits)
        deaths = _deaths(new)
        for percent in plan.steps:
            trial.percent = percent
            tell("step", old, new, f"{percent} % of the requests go to {new.version}")
            end_s = time.monotonic() + plan.every_s
            while (left_s := end_s - time.monotonic()) > 0:
                await asyncio.sleep(min(_POLL_S, left_s))
                if new.state is not State.READY or _deaths(new) > deaths:
                    raise SwapError(f"its process ended with {percent} % of the requests: {new.choose().detail}")
                if problem := trial.problem(old):
                    raise SwapError(f"with {percent} % of the requests {problem}")

    def _move(self, old: Model, new: Model, tell: Tell) -> None:
        """Let the new version have all requests from now on, and keep the old one for a while."""
        self._roster.take_over(old, new)
        new.swaps["ok"] += 1
        before, old.previous, new.previous = old.previous, None, old
        if before is not None and before is not new:
            task = asyncio.create_task(keep_up(f"{before.label}: its end", partial(self._roster.remove, before)))
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)
        if watch := self._watches.get(new.name):
            watch.cancel()
        keep = partial(self._watch, old, new, tell)
        self._watches[new.name] = asyncio.create_task(keep_up(f"{old.label}: its wait as the way back", keep))
        tell("ok", old, new, f"{new.version} serves {new.name}, {old.version} is the way back")

    async def _watch(self, old: Model, new: Model, tell: Tell) -> None:
        """Keep the old version for a while, let it take over again if the new one fails for good, and end it."""
        end_s = time.monotonic() + new.settings.rollback_s
        while time.monotonic() < end_s or not old.is_idle:
            await asyncio.sleep(_POLL_S)
            if new.state is State.FAILED and new.has_way_back:
                tell("rolled_back", new, old, f"{new.version} failed for good: {new.choose().detail}")
                _log.warning("%s failed for good; %s serves again", new.label, old.label, extra={"model": new.name})
                new.swaps["rolled_back"] += 1
                del self._watches[new.name]
                self._move(new, old, tell)
                return
        await self._roster.remove(old)


async def _compare_once(old: Model, new: Model, questions: Sequence[Question], plan: Plan) -> comparison.Comparison:
    """What comes of asking both versions. Raises SwapError where the new one fails, or too few answers are equal."""
    outcome = await comparison.compare(old.choose(), new.choose(), questions)
    if outcome.failures:
        raise SwapError(f"it failed {outcome.failures} of {outcome.requests} requests that {old.version} answered")
    if outcome.share < plan.limits.equal:
        raise SwapError(f"{outcome}, and {plan.limits.equal:.0%} must be (--min-equal)")
    return outcome


def _questions(old: Model, plan: Plan) -> Sequence[Question]:
    """What both versions are asked: the last requests where they are kept, else the plan's, else checks or example.

    Raises SwapError where a file of a check cannot be read.
    """
    if old.recording is not None and (recorded := old.recording.last(plan.compare)):
        return recorded
    if plan.questions:
        return plan.questions
    if old.settings.checks:
        try:
            return [question_of(check, old.name) for check in old.settings.checks.values()][: plan.compare]
        except OSError as problem:
            raise SwapError(f"its checks cannot be read: {problem}") from None
    example = old.card.example if old.card is not None else None
    return [] if example is None else [Question(None, msgspec.json.encode(example))]


def _deaths(model: Model) -> int:
    return sum(instance.deaths for instance in model.instances)


def _gap(old: Model) -> str:
    start_s = old.choose().start_s
    return "how long that takes is not known" if start_s is None else f"its last start took {start_s:.0f} s"
