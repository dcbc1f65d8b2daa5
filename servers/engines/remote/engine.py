"""A model that another OpenAI-compatible server serves, as an instance elsewhere: no process here, but a card.

Its server is asked as a local one is: the canary, admission, deadlines and metrics are those of every model.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configs.settings import RemoteModel
from servers.engines.base import CanaryError, Card, Elsewhere, description_limit
from servers.engines.connection import Connection
from servers.engines.kind import EngineKind, Site
from servers.engines.openai_document import CHAT, COMPLETIONS, EMBEDDINGS, openapi
from servers.engines.remote import description
from servers.engines.remote.connection import RemoteConnection

# The server has a queue of its own, and says when it is full.
_MAX_RUNNING = 128
_MESSAGES = [{"role": "user", "content": "1, 2, 3,"}]
# A small request for each route, the cheapest first, and the field that a right answer has.
_QUESTIONS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    COMPLETIONS: ({"prompt": "1, 2, 3,", "max_tokens": 1, "temperature": 0}, "choices"),
    CHAT: ({"messages": _MESSAGES, "max_tokens": 1}, "choices"),
    EMBEDDINGS: ({"input": "one"}, "data"),
    "/v1/responses": ({"input": "1, 2, 3,", "max_output_tokens": 16}, "output"),
    "/v1/messages": ({"messages": _MESSAGES, "max_tokens": 1}, "content"),
}
_JSON = {"content-type": "application/json"}
_FULL = 429
_ABSENT = (404, 405, 501)


@dataclass(frozen=True)
class RemoteEngine(Elsewhere):
    """The model `name` at the address `url`; `paths` are those that clients may reach."""

    name: str
    settings: RemoteModel
    paths: frozenset[str]
    url: str
    kind: str = "remote"

    def connect(self, socket: Path) -> Connection:  # noqa: ARG002 # of the protocol
        """The way to its address."""
        settings = self.settings
        key = None if settings.api_key is None else settings.api_key.get_secret_value()
        return RemoteConnection(self.url, self._model, key, f"models.{self.name}.api_key")

    async def warm(self, connection: Connection) -> Card:
        """What the server says of itself, then the canary."""
        async with description_limit():
            entry = description.entry(self.name, self._model, await _fetch(connection, "/v1/models"))
            offer = description.read(await _fetch(connection, "/openapi.json"), self._model)
        routes = self.paths & frozenset(
            offer.paths or (CHAT,) if self.settings.routes is None else self.settings.routes
        )
        if not routes and offer.predict_path is None:
            raise CanaryError(f"it offers no route for a model {self._model!r} (url, model, routes)")
        described = offer.document(routes)
        card = Card(
            routes,
            offer.predict_path,
            listing=(entry,),
            openapi=described if described["paths"] else openapi(routes),
            max_running=_MAX_RUNNING,
            example=offer.example,
        )
        if not await self._ask(connection, card):
            raise CanaryError("it is full")
        return card

    async def canary(self, connection: Connection, card: Card) -> None:
        """One token from a generating model, one vector from an embedding one. A server that is full is alive."""
        await self._ask(connection, card)

    @property
    def _model(self) -> str:
        return self.settings.model or self.name

    async def _ask(self, connection: Connection, card: Card) -> bool:
        """Whether the server answered; False when it is full. Raises CanaryError for a wrong answer."""
        path = next((path for path in _QUESTIONS if path in card.routes), None)
        if path is not None:
            question, field = _QUESTIONS[path]
        elif card.predict_path is not None and card.example is not None:
            path, question, field = card.predict_path, card.example, ""
        else:
            await _fetch(connection, "/v1/models")
            return True
        reply = await connection.send("POST", path, json.dumps(question).encode(), _JSON)
        answer = await reply.read()
        if reply.status == _FULL:
            return False
        if reply.status != 200 or (field and not (_object(answer) or {}).get(field)):
            raise CanaryError(f"POST {path} was answered {reply.status}: {_quote(answer)}")
        return True


async def _fetch(connection: Connection, path: str) -> dict[str, Any] | None:
    """A JSON object; None where the server has none at this path. Raises CanaryError for other answers."""
    reply = await connection.send("GET", path)
    if reply.status in _ABSENT:
        reply.close()
        return None
    answer = await reply.read()
    if reply.status != 200:
        raise CanaryError(f"GET {path} was answered {reply.status}: {_quote(answer)}")
    return _object(answer)


def _object(answer: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(answer)
    except ValueError:
        return None  # a page
    return document if isinstance(document, dict) else None


def _quote(answer: bytes) -> str:
    return answer[:300].decode(errors="replace")


def _make(name: str, settings: RemoteModel, site: Site) -> RemoteEngine:
    assert site.address is not None
    return RemoteEngine(name, settings, site.paths, site.address)


def _check_model(settings: RemoteModel) -> Iterable[tuple[str, str]]:
    if settings.source is not None:
        yield "source", "expected none: the model's files are where it runs"
    if any("@" in url for url in settings.addresses):  # no message of the settings' own, since that would quote it
        yield "url", "expected an address without a name and password; a key goes into api_key"
    if settings.replicas != 1:
        yield "replicas", "expected 1: name the addresses of several servers in instances"
    if settings.env:
        yield "env", "expected none: the model has no process here"


def _describe(settings: RemoteModel) -> str:
    plain = [urlsplit(url).hostname or "" for url in settings.addresses if url.startswith("http:")]
    hosts = [host for host in plain if host not in ("localhost", "127.0.0.1", "::1")]
    return f"its key goes to {', '.join(hosts)} unencrypted; use https" if settings.api_key and hosts else ""


REMOTE = EngineKind(
    RemoteModel, _make, _check_model, describe_model=_describe, addresses=lambda settings: settings.addresses
)
