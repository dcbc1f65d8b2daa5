"""The front door: the ASGI application on the public port.

It takes a request through what neither engine gives: keys, one list of routes, strict bodies, deadlines, quarantine,
admission, one error shape, request ids, an audit log. Then it hands the request over. Each step is a module of its own;
here is only their order. It refuses to change a request or an answer.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from configs.settings import Limits, LitportSettings
from servers.gateway import document, generation, listing, openapi, routes
from servers.gateway.admission import Admission
from servers.gateway.answer import Answer
from servers.gateway.audit import Audit
from servers.gateway.deadline import Deadline
from servers.gateway.errors import ApiError
from servers.gateway.forward import forward
from servers.gateway.keys import Key, Keyring
from servers.gateway.metrics import Metrics
from servers.gateway.quarantine import Quarantine
from servers.gateway.request import ClientGone, Receive, Request, Scope, Send
from servers.gateway.usage import Usage, usage_in
from servers.model import Model
from servers.supervisor import Supervisor

_log = logging.getLogger("litport.gateway")

_WITHOUT_KEY = frozenset({"/health", "/ready"})


@dataclass
class _Visit:
    """One request on its way: what is known of it so far."""

    request: Request
    answer: Answer
    begin_s: float
    key: Key | None = None
    model: Model | None = None
    usage: Usage = field(default_factory=Usage)


class FrontDoor:
    """An ASGI application over the supervisor's models. `in_flight` counts the requests that are being answered."""

    def __init__(
        self, supervisor: Supervisor, settings: LitportSettings, keyring: Keyring, version: str, address: str
    ) -> None:
        self._supervisor = supervisor
        self._limits = settings.limits
        self._keyring = keyring
        self._routes = routes.Routes(supervisor)
        self._admissions = {name: Admission(model) for name, model in supervisor.models.items()}
        self._quarantines = {name: Quarantine(model) for name, model in supervisor.models.items()}
        self._audit = Audit(settings.telemetry.audit_file)
        self._version = version
        self._address = address
        self._started_at = time.time()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.metrics = Metrics()

    async def drain(self) -> None:
        """Refuse new requests from now on, and return once none is being answered."""
        self._draining = True
        await self._idle.wait()

    def close(self) -> None:
        """Leave no file open."""
        self._audit.close()

    def reload(self, settings: LitportSettings, keyring: Keyring) -> None:
        """From now on hold requests to these limits and keys; those in flight go on under the old ones."""
        self._limits = settings.limits
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begin_s = time.monotonic()
        request = Request.from_scope(scope)
        visit = _Visit(request, Answer(send, request.id), begin_s)
        failed: int | None = None
        try:
            if request.path not in _WITHOUT_KEY:
                visit.key = self._keyring.find(request.headers)
            self._routes.check(request)
            if routes.is_told(request.path):
                await self._tell(request.path, visit.answer)
            else:
                await self._pass_on(visit, receive)
        except ApiError as error:
            failed = error.status
            await visit.answer.fail(error)
        except ClientGone:
            _log.debug("%s %s: the client left", request.method, request.path)
        except Exception:  # the last resort: it is our fault, and the client must still get an answer
            failed = 500
            _log.exception("%s %s failed (request %s)", request.method, request.path, request.id)
            await visit.answer.fail(ApiError(500, "the server failed; see its log", code="internal_error"))
        if request.path not in _WITHOUT_KEY:
            self._record(visit, failed)

    async def _tell(self, path: str, answer: Answer) -> None:
        """Answer what the front door itself knows."""
        supervisor = self._supervisor
        match path:
            case "/health":
                await answer.document({"status": "ok"})
            case "/ready":
                readiness = listing.readiness(supervisor, self._draining)
                await answer.document(readiness, 200 if readiness["ready"] else 503)
            case "/status":
                await answer.document(
                    listing.status(
                        supervisor, self._admissions, self._address, self._started_at, self.in_flight, self._version
                    )
                )
            case "/v1/models":
                await answer.document(listing.model_list(supervisor))
            case "/openapi.json":
                await answer.document(openapi.document(supervisor.models.values(), self._version))
            case _:
                await answer.document(listing.entry(*self._routes.listed(path)))

    async def _pass_on(self, visit: _Visit, receive: Receive) -> None:
        """Find the model, and see to it that it may and can have the request."""
        request, limits, key = visit.request, self._limits, visit.key
        assert key is not None
        deadline = Deadline.of(request, visit.begin_s, limits.request_timeout_s, "limits.request_timeout_s")
        async with deadline.limit():
            body = await request.read_body(receive, limits.max_body_bytes)
        content = None if routes.is_kept_response(request.path) else _document(request, body, limits)
        if self._draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"connection": "close"})
        model, path = self._routes.find(request, content.model if content else None)
        visit.model = model
        key.check_model(model.name)
        own_s = model.settings.request_timeout_s
        if own_s is not None:
            deadline = Deadline.of(request, visit.begin_s, own_s, f"models.{model.name}.request_timeout_s")
        tokens = content.tokens if content else 0
        key.enter(tokens)
        self.in_flight += 1
        self._idle.clear()
        try:
            async with (
                deadline.hold(receive),
                self._admissions[model.name].turn(key.name, tokens),
                self._quarantines[model.name].watch(path, body, request.id),
            ):
                await self._hand_over(visit, body, model, path)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            visit.usage = usage_in(visit.answer.tail)
            key.leave(tokens, _used_tokens(visit, tokens))

    async def _hand_over(self, visit: _Visit, body: bytes, model: Model, path: str) -> None:
        sent_s = time.monotonic()
        try:
            await forward(visit.request, body, model, path, visit.answer)
        finally:
            self.metrics.upstream_s.labels(model.name).observe(time.monotonic() - sent_s)

    def _record(self, visit: _Visit, failed: int | None) -> None:
        """Count the request, and note it for the audit. None as status: the client left before there was one."""
        spent_s = time.monotonic() - visit.begin_s
        status = visit.answer.status or failed
        if visit.model is not None:
            self.metrics.request_s.labels(visit.model.name).observe(spent_s)
            self.metrics.requests.labels(visit.model.name, status or "none").inc()
        self._audit.write(
            request_id=visit.request.id,
            key=visit.key.name if visit.key else None,
            client=visit.request.client,
            method=visit.request.method,
            path=visit.request.path[:200],
            model=visit.model.name if visit.model else None,
            status=status,
            error=failed,
            input_tokens=visit.usage.input_tokens,
            output_tokens=visit.usage.output_tokens,
            duration_s=round(spent_s, 4),
        )


def _document(request: Request, body: bytes, limits: Limits) -> document.Document:
    return document.read(
        body,
        request.content_type,
        limits,
        generates=request.path in generation.ROUTES,
        any_value=request.path.startswith(routes.PREDICT),
    )


def _used_tokens(visit: _Visit, estimated: int) -> int:
    """What the request counts for in the end, by what its answer says, or else by what was seen of it."""
    if visit.answer.status is None:
        return 0  # the model never answered
    if visit.usage.total is not None:
        return visit.usage.total
    return max(estimated, visit.answer.events)  # an event is about a token
