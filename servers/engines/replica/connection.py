"""The connection to a replica: HTTP with the shared secret, where each answer says how its request ended."""

from collections.abc import Mapping

import msgspec

from servers.engines.connection import AnswerBrokenError, NotTakenError, ProcessDiedError, Reply, TokenCount
from servers.engines.http_connection import HttpConnection
from servers.engines.remote.connection import address_of
from servers.engines.replica import wire
from servers.engines.replica.wire import Headers, Outcome
from servers.engines.stream import Stream
from servers.errors import ApiError

_INTERNAL = (wire.OUTCOME, wire.COUNT)
_UNAUTHORIZED = (401, 403)


class ReplicaConnection(HttpConnection):
    """The way to the replica at `url`. Connections are shared by requests."""

    def __init__(self, url: str, secret: str) -> None:
        super().__init__(address_of(url))
        self._secret = secret

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`.

        Raises NotTakenError where the replica has no process for it, ProcessDiedError, AnswerBrokenError, or ApiError
        for a request that the engine's rules refuse.
        """
        reply = await super().send(method, path, body, {**(headers or {}), wire.SECRET: self._secret}, query)
        fields = reply.headers  # the trailers come into this list
        outcome, message = wire.read_outcome(fields)
        if outcome is not Outcome.ANSWERED:
            raise await self._problem(reply, outcome, message)
        if isinstance(reply.chunks, Stream) and not any(name == b"content-length" for name, _ in fields):
            reply.tokens = TokenCount()
            reply.chunks.edit(_Trailers(fields, reply.tokens))
        elif counts := [value for name, value in fields if name == wire.COUNT]:
            reply.tokens = TokenCount()
            wire.read_count(counts[0], reply.tokens)
        reply.headers = [pair for pair in fields if pair[0] not in _INTERNAL]
        return reply

    async def _problem(self, reply: Reply, outcome: Outcome | None, message: str) -> Exception:
        answer = await reply.read()
        if outcome is Outcome.REFUSED:
            error = msgspec.json.decode(answer)["error"]
            return ApiError(reply.status, error["message"], code=error["code"], param=error["param"])
        if outcome is not None:
            return _error(outcome, message)
        if reply.status in _UNAUTHORIZED:
            text = f"refuses the secret of this gateway ({reply.status}): both need the same cluster.secret_file"
        else:
            text = f"answers {reply.status}, and not as a replica of this version of Litport"
        return NotTakenError(f"{self._authority} {text}")


class _Trailers:
    """Changes nothing of an answer, and reads behind its end how it ended."""

    def __init__(self, fields: Headers, tokens: TokenCount) -> None:
        self._fields = fields
        self._tokens = tokens

    def edit(self, chunk: bytes) -> bytes:
        """See `Editor`."""
        return chunk

    def rest(self) -> bytes:
        """See `Editor`. Raises ProcessDiedError or AnswerBrokenError for an answer that is not whole."""
        outcome, message = wire.read_outcome(self._fields)
        if outcome is not Outcome.ANSWERED:
            raise _error(outcome or Outcome.BROKEN, message)
        for name, value in self._fields:
            if name == wire.COUNT:
                wire.read_count(value, self._tokens)
        return b""


def _error(outcome: Outcome, message: str) -> Exception:
    if outcome is Outcome.ABSENT:
        return NotTakenError(message)
    return ProcessDiedError(message) if outcome is Outcome.DIED else AnswerBrokenError(message)
