"""The part of `/status` about a model's place in memory."""

import msgspec


class Residence(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model stays in memory, and what its loads on demand came to.

    `idle_s` is null while it is not in memory or has requests, `load_s`, the duration of its last start, while it was
    never up, and `wake_s`, that of its last waking, while it has not slept. `unloads` counts them by reason (`idle`,
    `room`, `command`), whether it sleeps then or ends; a sleep that goes deeper, or ends, is none. `measured_bytes` is
    what its processes took at the last look while they served, shared pages by their share. `next_out` marks the one
    model that would make room for another.
    """

    load: str
    idle_s: float | None
    load_s: float | None
    loads: int
    failed_loads: int
    unloads: dict[str, int]
    measured_bytes: int | None
    next_out: bool
    wake_s: float | None = None
