"""The documents about versions of a model: the order of a swap, its steps, and what serves beside the current one."""

from typing import Any, Literal

import msgspec


class SwapOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new version is, and how it takes over.

    `set` has the settings of the model that change, by their names below the model's. With `allow_gap` the old version
    may end before the new one starts. Both are asked `compare` requests; `min_equal` of the answers must be equal.
    `steps` are percentages of the requests that go to the new one, each for `every_s` seconds. It may fail a share of
    them that is larger by `max_errors`, and take `max_slowdown` times as long.
    """

    set: dict[str, Any]
    allow_gap: bool = False
    compare: int = 0
    steps: tuple[int, ...] = (100,)
    every_s: float = 60.0
    min_equal: float = 0.9
    max_errors: float = 0.01
    max_slowdown: float = 1.5


class ScaleOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many replicas a model is to have."""

    replicas: int


class VersionStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a change, and what came of it."""

    step: str
    detail: str


class VersionChange(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose version or number of replicas a command has changed, and the steps on the way."""

    model: str
    before: str
    version: str
    replicas: int
    steps: list[VersionStep]


class OtherVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that has processes beside the one that serves.

    On `trial` it gets `percent` of the requests. The `previous` one is kept for a rollback.
    """

    version: str
    role: Literal["trial", "previous", "starting"]
    state: str
    percent: int | None = None
