"""The front door: the ASGI application on the public port.

It takes a request through what neither engine gives: keys, one list of routes, strict bodies, deadlines, quarantine,
admission, one error shape, request ids, an audit log. Then it hands the request over. Each step is a module of its own;
here is only their order. It refuses to change a request or an answer.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from configs.settings import Limits, LitportSettings
from servers.errors import ApiError
from servers.gateway import listing
from servers.gateway.body import read as document
from servers.gateway.body import sampling as generation
from servers.gateway.deadline import Deadline
from servers.gateway.exchange import Visit
from servers.gateway.forward import forward
from servers.gateway.keys import Keyring
from servers.gateway.ledger import Ledger
from servers.gateway.openapi import docs_page as docs
from servers.gateway.openapi import merge as openapi
from servers.gateway.request import ClientGone, Receive, Request, Scope, Send
from servers.gateway.response import Answer
from servers.gateway.routes import table as routes
from servers.gateway.usage import usage_in
from servers.models.model import Model
from servers.models.supervisor import Supervisor
from servers.telemetry import Sampler

_log = logging.getLogger("litport.gateway")

_WITHOUT_KEY = docs.PATHS | {"/health", "/ready"}


class FrontDoor:
    """An ASGI application over the supervisor's models. `in_flight` counts the requests that are being answered."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: LitportSettings,
        keyring: Keyring,
        about: listing.About,
        sampler: Sampler | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._limits = settings.limits
        self._keyring = keyring
        self._routes = routes.Routes(supervisor)
        self._ledger = Ledger(settings.telemetry.audit_file)
        self._openapi = openapi.Document(about.version)
        self._about = about
        self._sampler = sampler
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.metrics = self._ledger.metrics.registry

    async def drain(self) -> None:
        """Refuse new requests from now on, and return once none is being answered."""
        self._draining = True
        await self._idle.wait()

    def close(self) -> None:
        """Leave no file open, and nothing untold."""
        self._ledger.close()

    def reload(self, settings: LitportSettings, keyring: Keyring) -> None:
        """From now on hold requests to these limits and keys; those in flight go on under the old ones."""
        self._limits = settings.limits
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begin_s = time.monotonic()
        request = Request.from_scope(scope)
        visit = Visit(request, Answer(send, request.id), begin_s, self._routes.label(request.path))
        self._ledger.begin(visit)
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
            self._ledger.refuse(visit, error)
            await visit.answer.fail(error)
        except ClientGone:
            _log.debug("%s %s: the client left", request.method, request.path, extra=visit.log_fields())
        except Exception:  # the last resort: it is our fault, and the client must still get an answer
            failed = 500
            _log.exception("%s %s failed", request.method, request.path, extra=visit.log_fields())
            await visit.answer.fail(ApiError(500, "the server failed; see its log", code="internal_error"))
        self._ledger.end(visit, failed)

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
                await answer.document(self._status())
            case "/v1/models":
                await answer.document(listing.model_list(supervisor))
            case "/openapi.json":
                await answer.whole(200, self._openapi.body(supervisor.models.values(), not self._keyring.empty))
            case _ if path in docs.PATHS:
                file = docs.file(path, not self._keyring.empty)
                await answer.start(200, file.headers())
                await answer.finish(file.body)
            case _:
                await answer.document(listing.entry(*self._routes.listed(path)))

    def _status(self) -> dict[str, Any]:
        return listing.status(
            self._about,
            self._supervisor,
            in_flight=self.in_flight,
            samples=self._sampler.fresh if self._sampler else (),
            nvml_error=self._sampler.nvml_error if self._sampler else None,
        )

    async def _pass_on(self, visit: Visit, receive: Receive) -> None:
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
                self._turn(visit, key.name, model, tokens),
                model.quarantine.watch(path, body, request.id),
            ):
                with self._ledger.upstream(visit, path) as trace:
                    await forward(request, body, model, path, visit.answer, trace)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            visit.usage = usage_in(visit.answer.tail)
            key.leave(tokens, _used_tokens(visit, tokens))

    @contextlib.asynccontextmanager
    async def _turn(self, visit: Visit, caller: str, model: Model, tokens: int) -> AsyncIterator[None]:
        self._ledger.wait(visit)
        async with model.admission.turn(caller, tokens):
            self._ledger.admit(visit)
            yield


def _document(request: Request, body: bytes, limits: Limits) -> document.Document:
    return document.read(
        body,
        request.content_type,
        limits,
        generates=request.path in generation.ROUTES,
        any_value=request.path.startswith(routes.PREDICT),
    )


def _used_tokens(visit: Visit, estimated: int) -> int:
    """What the request counts for in the end, by what its answer says, or else by what was seen of it."""
    if visit.answer.status is None:
        return 0  # the model never answered
    if visit.usage.total is not None:
        return visit.usage.total
    return max(estimated, visit.answer.events)  # an event is about a token
