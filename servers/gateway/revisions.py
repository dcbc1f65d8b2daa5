"""Revisions at a command: a model gets a new version, its last one again, or another number of replicas.

Each step is a line of the audit log.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from clients.version import ScaleOrder, SwapOrder, VersionChange, VersionStep
from configs.errors import UserError
from servers.errors import ApiError
from servers.gateway.directory import Directory
from servers.models.model import Model
from servers.models.start import StartError
from servers.models.trial import Limits, SwapError
from servers.models.versions import Plan, Tell

_MOST_COMPARED = 10_000


class Workshop(Protocol):
    """What makes versions of models and puts them in place; each raises UserError, SwapError and StartError."""

    async def swap(self, model: Model, changes: Mapping[str, Any], plan: Plan, tell: Tell) -> None:
        """Let a version with these settings take over."""
        ...

    async def rollback(self, model: Model, tell: Tell) -> None:
        """Let the version before take over."""
        ...

    async def scale(self, model: Model, replicas: int, tell: Tell) -> None:
        """Let the model have so many replicas."""
        ...


class Revisions:
    """Makes revisions of models; `audit` writes a line of the audit log.

    `turn` is held while models are changed. `is_over` is set once the platform drains.
    """

    def __init__(self, directory: Directory, audit: Callable[..., None]) -> None:
        self.workshop: Workshop | None = None
        self.turn = asyncio.Lock()
        self.is_over = False
        self._directory = directory
        self._audit = audit

    async def make(
        self, action: str, name: str, order: bytes, who: str, follow: Callable[[VersionStep], None] = lambda _: None
    ) -> VersionChange:
        """Swap, roll back or scale the model of this name as the JSON `order` says, and return once that is done.

        `follow` is called at each step. Raises ApiError: 400 for an order that cannot be followed, 404 for an unknown
        model, 409 where the version before goes on, 503 once the platform drains.
        """
        if self.is_over:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"connection": "close"})
        model = self._directory.find(name)
        work = self._work(action, model, order)
        if self.turn.locked():
            raise ApiError(409, "another change goes on; try again when it is over", code="under_change")
        steps: list[VersionStep] = []
        begin_s = time.monotonic()

        def tell(step: str, old: Model, new: Model, detail: str) -> None:
            steps.append(VersionStep(step=step, detail=detail))
            follow(steps[-1])
            places = {"from": old.version, "to": new.version, "result": step, "detail": detail}
            duration_s = round(time.monotonic() - begin_s, 4)
            self._audit(request_id=None, change=action, who=who, model=model.name, **places, duration_s=duration_s)

        try:
            async with self.turn:
                await work(tell)
        except UserError as problem:
            raise ApiError(400, str(problem), code="invalid_settings", param="set") from None
        except (SwapError, StartError) as problem:
            raise ApiError(409, str(problem), code="not_changed", param="model") from None
        now = self._directory.models.get(model.name, model)
        return VersionChange(
            model=model.name, before=model.version, version=now.version, replicas=len(now.instances), steps=steps
        )

    def _work(self, action: str, model: Model, order: bytes) -> Callable[[Tell], Awaitable[None]]:
        """What the order asks for. Raises ApiError 400."""
        workshop = self.workshop
        assert workshop is not None, "the platform sets it"
        if action == "rollback":
            return lambda tell: workshop.rollback(model, tell)
        try:
            if action == "scale":
                replicas = msgspec.json.decode(order, type=ScaleOrder).replicas
                return lambda tell: workshop.scale(model, replicas, tell)
            swap = msgspec.json.decode(order, type=SwapOrder)
        except msgspec.DecodeError as problem:
            raise ApiError(400, f"expected the order as JSON: {problem}", code="invalid_order") from None
        plan = _plan(swap)
        return lambda tell: workshop.swap(model, swap.set, plan, tell)


def _plan(order: SwapOrder) -> Plan:
    """How the new version takes over. Raises ApiError 400."""
    steps = order.steps
    if not steps or list(steps) != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] == 100:
        raise _wrong("steps", "rising percentages that end with 100", list(steps))
    if not 0 < order.every_s <= 86400:
        raise _wrong("every_s", "seconds above 0, at most 86400", order.every_s)
    if not 0 <= order.compare <= _MOST_COMPARED:
        raise _wrong("compare", f"a number up to {_MOST_COMPARED}", order.compare)
    for name, least, most in (("min_equal", 0.0, 1.0), ("max_errors", 0.0, 1.0), ("max_slowdown", 1.0, 1000.0)):
        if not least <= getattr(order, name) <= most:
            raise _wrong(name, f"a number from {least:g} to {most:g}", getattr(order, name))
    limits = Limits(errors=order.max_errors, slowdown=order.max_slowdown, equal=order.min_equal)
    return Plan(order.allow_gap, order.compare, steps, order.every_s, limits)


def _wrong(field: str, expected: str, value: object) -> ApiError:
    return ApiError(400, f"{field}: expected {expected}, got {value}", code="invalid_order", param=field)
