"""Restarts: whether an instance that broke is started again, and after how long."""

from servers.engines import environment
from servers.engines.replica import awaited
from servers.models.instance import Instance, State
from servers.models.model import Model
from servers.models.start import NoRoomError, NotWantedError, StartError, WrongAnswerError

_FIRST_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 30.0
_MAX_BACKOFF_ELSEWHERE_S = 4.0
# Requests, commands and changes wait no longer for a server elsewhere; no other change can begin meanwhile.
_LONGEST_WAIT_ELSEWHERE_S = 10.0


def outcome(
    model: Model, instance: Instance, problem: StartError, has_been_ready: bool, elapsed_s: float
) -> StartError | None:
    """Why the instance is not started again; None where it is.

    The same settings would fail in the same way, but an instance elsewhere comes back by itself: it is given up only
    where a required model or a load waits in vain for it and all others, or a new version for it, and never where a
    gateway finds its replicas while it runs.
    """
    if isinstance(problem, NotWantedError | NoRoomError):
        return problem
    if isinstance(problem, WrongAnswerError) and not has_been_ready:
        return problem  # nothing in the environment explains it
    if instance.address is not None:
        is_awaited = not has_been_ready and awaited.ADDRESS not in model.settings.instances
        is_awaited = is_awaited and (model.settings.required or model.residence.on_demand)
        is_awaited = is_awaited and (model.residence.is_beside or _is_away(model))
        limit_s = _patience_s(model) if model.residence.on_demand else model.settings.start_timeout_s
        is_late = is_awaited and elapsed_s > limit_s
        return StartError(f"{problem} (for {elapsed_s:.0f} s)") if is_late else None
    if not has_been_ready:
        return StartError(f"{problem}{environment.hint()}")
    if instance.failures > model.settings.max_restarts:
        return StartError(f"failed again after {instance.failures - 1} restarts: {problem}")
    return None


def absence(model: Model, problem: StartError, elapsed_s: float) -> StartError | None:
    """What a caller hears who waits for a model elsewhere that is asked on; None while it is worth the wait."""
    if not _is_away(model) or elapsed_s <= _patience_s(model):
        return None
    return StartError(f"{problem}; it is asked again until it answers")


def backoff_s(instance: Instance) -> float:
    """How long to wait before the next start, in seconds."""
    limit_s = _MAX_BACKOFF_S if instance.address is None else _MAX_BACKOFF_ELSEWHERE_S
    return min(_FIRST_BACKOFF_S * 2.0 ** min(instance.failures - 1, 10), limit_s)


def _patience_s(model: Model) -> float:
    return min(model.settings.start_timeout_s, _LONGEST_WAIT_ELSEWHERE_S)


def _is_away(model: Model) -> bool:
    """Whether each of its instances is elsewhere, and did not answer when it was last asked."""
    return all(
        instance.address is not None and instance.failures and instance.state is not State.READY
        for instance in model.instances
    )
