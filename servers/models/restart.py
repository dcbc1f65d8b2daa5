"""Restarts: whether an instance that broke is started again, and after how long."""

from servers.engines import environment
from servers.engines.replica import awaited
from servers.models.instance import Instance
from servers.models.model import Model
from servers.models.start import NoRoomError, NotWantedError, StartError, WrongAnswerError

_FIRST_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 30.0
_MAX_BACKOFF_ELSEWHERE_S = 4.0
# A new version waits no longer for a server elsewhere: the old one goes on, and no other change can begin meanwhile.
_LONGEST_WAIT_BESIDE_S = 10.0


def outcome(
    model: Model, instance: Instance, problem: StartError, has_been_ready: bool, elapsed_s: float
) -> StartError | None:
    """Why the instance is not started again; None where it is.

    The same settings would fail in the same way, but an instance elsewhere comes back by itself: it is given up only
    where somebody waits for it in vain at the start, and never where a gateway finds its replicas while it runs.
    """
    if isinstance(problem, NotWantedError | NoRoomError):
        return problem
    if isinstance(problem, WrongAnswerError) and not has_been_ready:
        return problem  # nothing in the environment explains it
    if instance.address is not None:
        is_awaited = not has_been_ready and awaited.ADDRESS not in model.settings.instances
        is_awaited = is_awaited and (model.settings.required or model.residence.on_demand)
        limit_s = model.settings.start_timeout_s
        if model.residence.is_beside:
            limit_s = min(limit_s, _LONGEST_WAIT_BESIDE_S)
        is_late = is_awaited and elapsed_s > limit_s
        return StartError(f"{problem} (for {elapsed_s:.0f} s)") if is_late else None
    if not has_been_ready:
        return StartError(f"{problem}{environment.hint()}")
    if instance.failures > model.settings.max_restarts:
        return StartError(f"failed again after {instance.failures - 1} restarts: {problem}")
    return None


def backoff_s(instance: Instance) -> float:
    """How long to wait before the next start, in seconds."""
    limit_s = _MAX_BACKOFF_S if instance.address is None else _MAX_BACKOFF_ELSEWHERE_S
    return min(_FIRST_BACKOFF_S * 2.0 ** min(instance.failures - 1, 10), limit_s)
