"""The instance of a model at a replica, whatever engine runs it there.

The replica asks its model with the engine's own canary, and watches its processes. The gateway follows the state that
the replica tells: a question waits there until the state changes, so that each change is known at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from servers.engines.base import CanaryError, Card, Elsewhere, Rules, description_limit, get
from servers.engines.connection import Connection, NotTakenError
from servers.engines.replica import wire
from servers.engines.replica.connection import ReplicaConnection
from servers.engines.replica.wire import Description, State

READY, DRAINING = "ready", "draining"


@dataclass(frozen=True)
class ReplicaEngine(Elsewhere):
    """The model `name` of the engine `kind` at the replica `url`; `rules` makes the rules for its card."""

    name: str
    kind: str
    url: str
    secret: str = field(repr=False)
    rules: Callable[[Card], Rules | None]

    def connect(self, socket: Path) -> Connection:  # noqa: ARG002 # of the protocol
        """The way to its address."""
        return ReplicaConnection(self.url, self.secret)

    async def warm(self, connection: Connection) -> Card:
        """The card of the model, which is ready. Raises NotTakenError while it is not, or for another replica."""
        try:
            async with description_limit():
                description = msgspec.json.decode(await get(connection, wire.CARD_PATH), type=Description)
        except msgspec.MsgspecError as problem:
            raise NotTakenError(f"{self.url}: its card is not one of this version of Litport: {problem}") from None
        actual = (description.protocol, description.model, description.engine)
        if actual != (wire.VERSION, self.name, self.kind):
            protocol, model, engine = actual
            raise NotTakenError(
                f"{self.url}: expected a replica of model {self.name!r}, engine {self.kind}, protocol {wire.VERSION}; "
                f"it has model {model!r}, engine {engine}, protocol {protocol}"
            )
        return wire.card_of(description, self.rules)

    async def canary(self, connection: Connection, card: Card) -> None:  # noqa: ARG002 # of the protocol
        """Whether the replica is ready; its own canary asks the model. Raises CanaryError."""
        state = await self.follow(connection, 0)
        if state.state != READY:
            raise CanaryError(f"its model is {state.state} {state.detail}".rstrip())

    async def follow(self, connection: Connection, wait_s: float, waiting: float = 0) -> State:
        """The replica's state as soon as it is not ready, at the latest after `wait_s` seconds.

        Until then the replica has `waiting` as its share of the requests that wait here.
        """
        query = f"wait={wait_s:g}&waiting={waiting:.3f}"
        reply = await connection.send("GET", wire.STATE_PATH, query=query)
        return msgspec.json.decode(await reply.read(), type=State)
