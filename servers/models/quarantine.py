"""Quarantine: rejects requests that kill the process of their model.

Some requests kill the process that answers them, and their senders send them again. A request that is in flight at a
death becomes a suspect, unless no process had taken it yet. If it is in flight at the next death too, and no other
suspect is, it is rejected from then on. If other suspects are, each of them is sent alone until the death of the
process names one. Any answer clears a suspect. Requests are identified by a digest; their content is not stored.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from servers.errors import ApiError, BystanderError

_log = logging.getLogger("litport.gateway")
_MAX_SUSPECTS = 1024
_SUSPECT_TTL_S = 3600.0
# Requests that end by the same death end within this time.
_SAME_DEATH_S = 1.0


@dataclass
class _Suspect:
    died_at_s: float
    in_flight: int = 0
    isolated: bool = False
    guilty: bool = False


class Quarantine:
    """The suspects of the model `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._suspects: dict[bytes, _Suspect] = {}
        self._alone = asyncio.Lock()

    async def watch(
        self, path: str, body: bytes, request_id: str, send: Callable[[], Awaitable[None]], deaths: Callable[[], int]
    ) -> None:
        """Call `send`, which sends the request to a process; `deaths` counts those of that process meanwhile.

        Raises ApiError 422 for a request that is guilty.
        """
        digest = _digest(path, body) if self._suspects else None  # saves the hash while nothing has died
        suspect = self._suspect(digest)
        is_alone = suspect is not None and suspect.isolated
        if is_alone:
            await self._alone.acquire()
            try:
                suspect = self._suspect(digest)  # a copy of it may have been proven guilty meanwhile, or innocent
            except ApiError:
                self._alone.release()
                raise
        if suspect:
            suspect.in_flight += 1
        has_company, begin_s = self._has_company(suspect), time.monotonic()
        failed, died, is_bystander = True, False, False
        try:
            await send()
            failed = False
        except ApiError as error:
            died = error.code == "model_died"
            is_bystander = isinstance(error, BystanderError)
            raise
        finally:
            # vLLM may report the death of its engine in an ordinary answer.
            if is_bystander:
                pass
            elif died or deaths():
                has_company = has_company or self._has_company(suspect)
                self._blame(digest or _digest(path, body), has_company, begin_s, request_id)
            elif digest and suspect and not failed:
                self._suspects.pop(digest, None)
            if suspect:
                # Later, because the other requests of this death still check for company.
                asyncio.get_running_loop().call_later(_SAME_DEATH_S, _leave, suspect)
            if is_alone:
                self._alone.release()

    def _suspect(self, digest: bytes | None) -> _Suspect | None:
        """The suspect of this digest. Raises ApiError 422 where it is guilty."""
        suspect = self._suspects.get(digest) if digest else None
        if digest and suspect and time.monotonic() - suspect.died_at_s > _SUSPECT_TTL_S:
            del self._suspects[digest]
            return None
        if suspect and suspect.guilty:
            message = f"the process of model '{self._name}' died each time that it had this request; it is not retried"
            raise ApiError(422, message, code="request_quarantined")
        return suspect

    def _has_company(self, suspect: _Suspect | None) -> bool:
        """Whether another suspect is in flight."""
        return any(entry.in_flight and entry is not suspect for entry in self._suspects.values())

    def _blame(self, digest: bytes, has_company: bool, begin_s: float, request_id: str) -> None:
        suspect = self._suspects.pop(digest, None)
        now_s = time.monotonic()
        if suspect and begin_s < suspect.died_at_s:
            pass  # two copies of the request were in flight at one death
        elif suspect is None:
            suspect = _Suspect(now_s)
        elif has_company:
            suspect.isolated = True
        else:
            suspect.guilty = True
            fields = {"model": self._name, "request_id": request_id}
            message = "%s: request %s killed its process twice and is in quarantine"
            _log.warning(message, self._name, request_id, extra=fields)
        suspect.died_at_s = now_s
        self._suspects[digest] = suspect
        if len(self._suspects) > _MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]


def _leave(suspect: _Suspect) -> None:
    suspect.in_flight -= 1


def _digest(path: str, body: bytes) -> bytes:
    return hashlib.blake2b(path.encode() + b"\0" + body, digest_size=16).digest()
