"""One request on its way through the front door: what is known of it so far."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from servers.gateway.keys import Key
from servers.gateway.request import Request
from servers.gateway.response import Answer
from servers.gateway.usage import Usage
from servers.models.model import Model

if TYPE_CHECKING:
    from servers.gateway.spans import RequestSpan


@dataclass
class Visit:
    """`begin_s` is when its head had come (`time.monotonic()`), `route` its path for statistics."""

    request: Request
    answer: Answer
    begin_s: float
    route: str
    key: Key | None = None
    model: Model | None = None
    usage: Usage = field(default_factory=Usage)
    span: "RequestSpan | None" = None
    asked_s: float = 0.0

    @property
    def model_name(self) -> str | None:
        """The model that it is for, once that is known."""
        return self.model.name if self.model else None

    @property
    def key_name(self) -> str | None:
        """Whose it is, once that is known."""
        return self.key.name if self.key else None

    def log_fields(self) -> dict[str, Any]:
        """The fields of a log line about it."""
        return {"model": self.model_name, "request_id": self.request.id}
