"""The front door: the ASGI application on the public port.

It gives every request what neither engine gives: keys, one list of routes, strict bodies, deadlines, quarantine,
admission, one error shape, request ids, an audit log. `FrontDoor.__call__` is the life of a request; each step is a
module of its own. Requests and answers pass through unchanged.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from clients.documents import Readiness, Status
from configs.settings import LitportSettings
from servers.engines.model_field import name_model
from servers.errors import ApiError, UnservedError
from servers.gateway import cycle
from servers.gateway.body.content import BodyKind, read_content
from servers.gateway.changes import Changes
from servers.gateway.deadline import Deadline
from servers.gateway.directory import Directory, UnknownOfferError, offering_card, ready_card
from servers.gateway.exchange import Exchange
from servers.gateway.fallback import turn_to_fallback
from servers.gateway.forward import forward
from servers.gateway.keys import Key, Keyring
from servers.gateway.ledger import Ledger, count_tokens, usage_of
from servers.gateway.limits.gate import Gate
from servers.gateway.openapi.merge import Document
from servers.gateway.request import ClientGone, Receive, Request, Scope, Send
from servers.gateway.response import Response
from servers.gateway.review import review
from servers.gateway.revisions import Revisions
from servers.gateway.routes import registry
from servers.gateway.routes.table import Match, RouteTable
from servers.gateway.status import About, status
from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.processes.pause import PauseClock
from servers.telemetry import Sampler

_log = logging.getLogger("litport.gateway")


class FrontDoor:
    """An ASGI application over the supervisor's models. Its routes are those that are registered when it is built."""

    def __init__(
        self,
        supervisor: Supervisor,
        loader: Loader,
        settings: LitportSettings,
        keyring: Keyring,
        about: About,
        sampler: Sampler | None = None,
    ) -> None:
        routes = registry.routes()
        self.directory = Directory(supervisor.models)
        self._supervisor = supervisor
        self._loader = loader
        self._limits = settings.limits
        self._keyring = keyring
        self._table = RouteTable(routes, self.directory.offers)
        self.ledger = Ledger(settings.telemetry.audit_file)
        self.changes = Changes(self.directory, loader, self.ledger.change)
        self.revisions = Revisions(self.directory, self.ledger.change)
        self._document = Document(about.version, routes)
        self._about = about
        self._sampler = sampler
        self._is_draining = False
        self._request_ended = asyncio.Event()
        self.metrics = self.ledger.metrics.registry
        self.gate = Gate(None)
        self.clock = PauseClock()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        begin_s = time.monotonic()
        request = Request.from_scope(scope)
        match = self._table.match(request.method, request.path)
        route = match.route
        own_cycle = cycle.take(scope)
        response = Response(send, own_cycle, request.id, route.errors)
        exchange = Exchange(
            request, response, self, own_cycle, self._limits, route.label or route.template, match.parameters, begin_s
        )
        if route.is_recorded:
            self.ledger.begin(exchange)
        error_status: int | None = None
        try:
            await self._answer(exchange, match)
        except ApiError as error:
            error_status = error.status
            self.ledger.reject(exchange, error)
            await response.send_error(error)
        except ClientGone:
            _log.debug("%s %s: the client left", request.method, request.path, extra=exchange.log_fields())
        except Exception:  # the last resort: it is our fault, and the client must still get an answer
            error_status = 500
            _log.exception("%s %s failed", request.method, request.path, extra=exchange.log_fields())
            await response.send_error(ApiError(500, "the server failed; see its log", code="internal_error"))
        if route.is_recorded:
            self.ledger.end(exchange, error_status)

    async def _answer(self, exchange: Exchange, match: Match) -> None:
        """Check the key and the method, read the body, and let the route's handler answer."""
        if match.route.needs_key:
            exchange.key = self._keyring.find(exchange.request.headers)
        if match.allow is not None:
            message = f"{exchange.request.path} takes {match.allow}, not {exchange.request.method}"
            raise ApiError(405, message, code="method_not_allowed", headers={"allow": match.allow})
        if match.route.body is not BodyKind.UNREAD:
            await self._read_body(exchange, match.route.body)
        try:
            await match.route.handler(exchange)
        except UnknownOfferError as unknown:
            await self._load(exchange, unknown.model, match)

    async def _read_body(self, exchange: Exchange, kind: BodyKind) -> None:
        request, limits = exchange.request, exchange.limits
        deadline = self._deadline(exchange)
        body = request.take_body(exchange.cycle, limits.max_body_bytes)
        if body is None:
            body = await deadline.limit_body(request.read_body(exchange.cycle, limits.max_body_bytes))
        exchange.body = body
        exchange.content = read_content(exchange.body, request.content_type, limits, kind)
        if self._is_draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"connection": "close"})

    async def dispatch(self, exchange: Exchange, model: Model, path: str | None) -> None:
        """See `Gateway.dispatch`: key, deadline, turn, quarantine, and then the model's process.

        The key's rights and the deadline are those for the model that the request names.
        """
        key = _key_for(exchange, model)
        review(exchange, model, path)
        deadline = self._deadline(exchange, model)

        def answer() -> Awaitable[None]:
            return deadline.limit_answer(exchange.cycle, self._serve(exchange, model, path))

        await (answer() if exchange.is_entered else self._enter(exchange, key, answer))

    async def _enter(self, exchange: Exchange, key: Key, answer: Callable[[], Awaitable[None]]) -> None:
        """Have the exchange answered within the limits of the key."""
        tokens = exchange.content.tokens
        entry = await self.gate.enter(key, tokens)
        exchange.is_entered = True
        try:
            await answer()
        finally:
            exchange.usage = usage_of(exchange)
            self.gate.leave(key, entry, tokens, count_tokens(exchange))
            self._request_ended.set()

    async def _serve(self, exchange: Exchange, model: Model, path: str | None) -> None:
        """Let the model answer, or else the first one of those that it falls back on and that has room."""
        refusal: UnservedError | None = None
        candidate: Model | None = model
        while candidate is not None:
            try:
                await self._run(exchange, candidate, path)
                return
            except UnservedError as error:
                refusal = refusal or error
                candidate = turn_to_fallback(exchange, candidate, path, self.ledger)
        assert refusal is not None
        exchange.model, exchange.fallback_for = model, None
        exchange.response.notes.clear()
        raise refusal

    async def _load(self, exchange: Exchange, model: Model, match: Match) -> None:
        """Wait until the model is loaded for the first time, and let the route's handler answer then."""
        key = _key_for(exchange, model)
        self._loader.demand(model)

        async def answer() -> None:
            turn = model.admission.wait(key.name, exchange.content.tokens)
            await self._deadline(exchange, model).limit_answer(exchange.cycle, turn)
            await match.route.handler(exchange)

        await self._enter(exchange, key, answer)

    async def _run(self, exchange: Exchange, model: Model, path: str | None) -> None:
        """Let the version of the model answer whose turn it is; where that cannot, the one which the name leads to."""
        if model.is_leaving:  # it was replaced since the request found it
            model = exchange.model = self.directory.models.get(model.name, model)
        if model.recording is not None:
            model.recording.note(path, exchange.body, exchange.request.headers.get("content-type"))
        if model.trial is not None and model.trial.take():
            exchange.model = model.trial.version
            try:
                await self._answer_by(exchange, model.trial.version, path)
                return
            except UnservedError:
                exchange.model = model
        await self._answer_by(exchange, model, path)

    async def _answer_by(self, exchange: Exchange, model: Model, path: str | None) -> None:
        """Wait for a turn, then send the request to the model's process and its answer to the client."""
        assert exchange.key is not None
        if not model.residence.is_open:
            self._loader.demand(model)
        admission, caller, tokens = model.admission, exchange.key.name, exchange.content.tokens
        try:
            card = ready_card(model)
        except UnknownOfferError:
            await admission.wait(caller, tokens)
            card = offering_card(model, path)
            review(exchange, model, path)
        if not card.knows_aliases and path is not None and exchange.content.model in model.settings.aliases:
            exchange.body = name_model(exchange.body, exchange.request.content_type, model.name)
        path = path or card.predict_path or ""
        self.ledger.queue(exchange)
        begin_s = await admission.enter(caller, tokens)
        try:
            self.ledger.admit(exchange)
            send = partial(forward, exchange, model, path, self.ledger)
            await model.quarantine.watch(path, exchange.body, exchange.request.id, send, lambda: exchange.deaths)
        finally:
            admission.leave(caller, tokens, begin_s)

    def _deadline(self, exchange: Exchange, model: Model | None = None) -> Deadline:
        """The model's own limit where it has one, else the server's, or less if the client asks for less."""
        limit_s, name = exchange.limits.request_timeout_s, "limits.request_timeout_s"
        if model is not None and model.settings.request_timeout_s is not None:
            limit_s, name = model.settings.request_timeout_s, f"models.{model.name}.request_timeout_s"
        return Deadline.of_request(exchange.request, exchange.begin_s, limit_s, name, self.clock)

    @property
    def in_flight(self) -> int:
        """The requests that wait for a model or that a model works on."""
        return sum(model.admission.running + model.admission.waiting for model in self._supervisor.all_models)

    @property
    def needs_key(self) -> bool:
        """Whether callers need a key."""
        return not self._keyring.empty

    @property
    def version(self) -> str:
        """Litport's version."""
        return self._about.version

    def readiness(self) -> Readiness:
        """Whether every required model is ready and the platform does not drain, and each model's state."""
        states = {name: model.state.value for name, model in self.directory.models.items()}
        return Readiness(ready=self._supervisor.ready and not self._is_draining, models=states)

    def status(self) -> Status:
        """What runs where, and how busy it is."""
        return status(
            self._about,
            self.directory.models.values(),
            in_flight=self.in_flight,
            samples=self._sampler.fresh if self._sampler else (),
            nvml_error=self._sampler.nvml_error if self._sampler else None,
            next_out=self._loader.room.next_out(),
            beside=self._supervisor.beside,
        )

    def openapi(self) -> bytes:
        """The OpenAPI document of the models that are up."""
        return self._document.body(self.directory.models.values(), self.needs_key)

    def reload(self, settings: LitportSettings, keyring: Keyring) -> None:
        """Apply these limits and keys to new requests; those in flight go on under the old ones."""
        self._limits = settings.limits
        self._keyring = keyring

    async def drain(self) -> None:
        """Reject new requests from now on, and return once none is in flight."""
        self._is_draining = True
        while self.in_flight:
            self._request_ended.clear()
            await self._request_ended.wait()

    def close(self) -> None:
        """Close the audit file, and send the last spans."""
        self.ledger.close()


def _key_for(exchange: Exchange, model: Model) -> Key:
    """The key of an exchange that is the model's from now on. Raises ApiError 403 where it may not call the model."""
    assert exchange.key is not None, "a route that reaches a model needs a key"
    exchange.model = model
    exchange.key.check_model(model.granted_name(exchange.content.model))
    return exchange.key
