"""The layers that a request passes: each is a row of the breakdown, with a label and an owner.

Advice and reports are keyed by the layer and never by its label, so a label may change. Every engine has an enum of its
own, so two engines may use the same label for different work: LitServe's `decode` parses a request, vLLM's generates.
"""

from enum import Enum
from typing import Self


class Owner(Enum):
    """Whose time a layer is. What the model does not own is the cost of serving."""

    CLIENT = "client"
    FRONT_DOOR = "front door"
    ENGINE = "engine"
    MODEL = "model"


class Layer(Enum):
    """Base of the layers of an engine; a member is `KEY, LABEL, OWNER`, and its value is the key.

    A key names the layer in `result.json` and is unique over all engines: `ENGINE.NAME`.
    """

    label: str
    owner: Owner

    def __new__(cls, key: str, label: str, owner: Owner) -> Self:
        """Make a member whose value is the key."""
        member = object.__new__(cls)
        member._value_ = key
        member.label = label
        member.owner = owner
        return member

    @property
    def serves(self) -> bool:
        """Whether its time is the cost of serving and not the model's own work."""
        return self.owner is not Owner.MODEL


class ClientLayer(Layer):
    """What lies before a server, and all of a model that has none."""

    LATENESS = "client.lateness", "client lateness", Owner.CLIENT
    NETWORK = "client.network", "network, accept, client read", Owner.CLIENT
    WAITING = "client.waiting", "waiting for the model", Owner.CLIENT
    LOOP = "client.loop", "loop", Owner.CLIENT


class FrontDoorLayer(Layer):
    """What Litport adds in front of a model's process."""

    FRONT_DOOR = "front_door.request", "front door", Owner.FRONT_DOOR
    HOP = "front_door.hop", "hop to the model's process", Owner.FRONT_DOOR


class ServerLayer(Layer):
    """A server that belongs to no engine: the naive one, or one without series that are known."""

    HTTP = "server.http", "HTTP and parsing", Owner.ENGINE
    MODEL = "server.model", "model", Owner.MODEL
    WHOLE = "server.whole", "server", Owner.ENGINE
