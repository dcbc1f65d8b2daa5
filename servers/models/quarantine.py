"""Quarantine: requests that were in hand when their model's process died, and were again the next time.

Some requests break what answers them, and their senders send them again. One that was there at a death is suspected.
If it is there at the next one too, and no other suspect is, it is refused from then on; if others are, they are let in
one at a time until it shows which of them it was. Any answer clears a suspect. Requests are known by a digest; their
content is not kept.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from servers.errors import ApiError
from servers.models.model import Model

_log = logging.getLogger("litport.gateway")
_MAX_SUSPECTS = 1024
_KEPT_S = 3600.0
# What ends within this time ends by the same death: no process is up again so soon.
_ONE_DEATH_S = 1.0


@dataclass
class _Suspect:
    seen_at_s: float
    visits: int = 0
    isolated: bool = False
    guilty: bool = False


class Quarantine:
    """The suspects of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._suspects: dict[bytes, _Suspect] = {}
        self._alone = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def watch(self, path: str, body: bytes, request_id: str) -> AsyncIterator[None]:
        """Run the block, which sends the request to the process. Raises ApiError 422 for one that is guilty."""
        digest = _digest(path, body) if self._suspects else None  # most requests need none
        suspect = self._suspects.get(digest) if digest else None
        if suspect and time.monotonic() - suspect.seen_at_s > _KEPT_S:
            suspect = None
        if suspect and suspect.guilty:
            message = (
                f"the process of model '{self._model.name}' died each time that it had this request; it is not retried"
            )
            raise ApiError(422, message, code="request_quarantined")
        async with self._alone if suspect and suspect.isolated else contextlib.nullcontext():
            if suspect:
                suspect.visits += 1
            company, deaths = self._others(suspect), self._model.deaths
            failed, died = True, False
            try:
                yield
                failed = False
            except ApiError as error:
                died = error.code == "model_died"
                raise
            finally:
                # vLLM may tell of its engine's death itself, in an answer like any other.
                if died or self._model.deaths != deaths:
                    self._blame(digest or _digest(path, body), company or self._others(suspect), request_id)
                elif digest and suspect and not failed:
                    self._suspects.pop(digest, None)
                if suspect:
                    # After the others of this death have looked for company.
                    asyncio.get_running_loop().call_later(1, _leave, suspect)

    def _others(self, suspect: _Suspect | None) -> bool:
        """Whether another suspect is in hand."""
        return any(other.visits and other is not suspect for other in self._suspects.values())

    def _blame(self, digest: bytes, company: bool, request_id: str) -> None:
        suspect = self._suspects.pop(digest, None)
        now_s = time.monotonic()
        if suspect and now_s - suspect.seen_at_s < _ONE_DEATH_S:
            pass  # the same request was there twice
        elif suspect is None:
            suspect = _Suspect(now_s)
        elif company:
            suspect.isolated = True
        else:
            suspect.guilty = True
            name = self._model.name
            about = {"model": name, "request_id": request_id}
            _log.warning("%s: request %s killed its process twice and is in quarantine", name, request_id, extra=about)
        suspect.seen_at_s = now_s
        self._suspects[digest] = suspect
        if len(self._suspects) > _MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]


def _leave(suspect: _Suspect) -> None:
    suspect.visits -= 1


def _digest(path: str, body: bytes) -> bytes:
    return hashlib.blake2b(path.encode() + b"\0" + body, digest_size=16).digest()
