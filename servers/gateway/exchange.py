"""An exchange: one request and its response on their way through the front door.

A route's handler gets an exchange, and reaches the platform through its `gateway`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from clients.documents import Readiness, Status
from configs.settings import Limits
from servers.engines.connection import TokenCount
from servers.gateway.body.content import NO_CONTENT, Content
from servers.gateway.changes import Changes
from servers.gateway.cycle import Cycle
from servers.gateway.directory import Directory
from servers.gateway.keys import Key
from servers.gateway.request import Request
from servers.gateway.response import Response
from servers.gateway.revisions import Revisions
from servers.gateway.usage import NO_USAGE, Usage
from servers.models.model import Model

if TYPE_CHECKING:
    from servers.gateway.spans import RequestSpan


class Gateway(Protocol):
    """What a route's handler may use of the platform."""

    @property
    def directory(self) -> Directory:
        """The models by their names."""
        ...

    @property
    def changes(self) -> Changes:
        """What loads and unloads models at a command."""
        ...

    @property
    def revisions(self) -> Revisions:
        """What changes versions and replicas of models at a command."""
        ...

    @property
    def needs_key(self) -> bool:
        """Whether callers need a key."""
        ...

    @property
    def version(self) -> str:
        """Litport's version."""
        ...

    def readiness(self) -> Readiness:
        """Whether the platform takes traffic, and each model's state."""
        ...

    def status(self) -> Status:
        """What runs where, and how busy it is."""
        ...

    def openapi(self) -> bytes:
        """The OpenAPI document of the platform as it is now."""
        ...

    async def dispatch(self, exchange: "Exchange", model: Model, path: str | None) -> None:
        """Let the model answer the exchange under `path` of its process, as soon as keys and limits allow it.

        The path None is the one on its card that predicts. Where the model has no process that could take the request,
        or no room, those that it falls back on are tried.

        The route must need a key and read its body. Raises ApiError for what is over a limit, and for a model that
        ends before it answers.
        """
        ...


@dataclass(slots=True)
class Exchange:
    """One request and its response.

    `label` is the route's name in metrics, `parameters` has the values of the parameters in its pattern, `begin_s` is
    the arrival of the request's head (`time.monotonic()`), and `limits` are those in force at that moment.

    `cycle` is the connection's side of it.

    The other fields are set on its way: the caller's `key`, the `body` and its `content`, the `model` that answers, the
    `tokens` that the model's process counts, the `usage` by that count or by the answer, `queued_s`, when it began to
    wait for its turn, and `sent_s`, when it had it. `is_entered` is whether the limits of its key count it.
    `fallback_for` is the model that it named, where another one answers. `deaths` is how often the process died that
    had it.
    """

    request: Request
    response: Response
    gateway: Gateway
    cycle: Cycle
    limits: Limits
    label: str
    parameters: Mapping[str, str]
    begin_s: float
    key: Key | None = None
    body: bytes = b""
    content: Content = NO_CONTENT
    model: Model | None = None
    is_entered: bool = False
    fallback_for: Model | None = None
    deaths: int = 0
    tokens: TokenCount | None = None
    usage: Usage = NO_USAGE
    span: "RequestSpan | None" = None
    queued_s: float = 0.0
    sent_s: float = 0.0

    @property
    def model_name(self) -> str | None:
        """The name of the model, or of its adapter, once it is known."""
        return self.model.granted_name(self.content.model) if self.model else None

    @property
    def key_name(self) -> str | None:
        """The key's name, once it is known."""
        return self.key.name if self.key else None

    def log_fields(self) -> dict[str, Any]:
        """The fields of a log line about it."""
        return {"model": self.model_name, "request_id": self.request.id}
