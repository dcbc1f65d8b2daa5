"""The front door: the ASGI application on the public port.

It takes a request through what neither engine gives: keys, one list of routes, strict bodies, deadlines, quarantine,
admission, one error shape, request ids, an audit log. Then it hands the request over. Each step is a module of its own;
here is only their order. It refuses to change a request or an answer.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from configs.settings import Limits, LitportSettings
from servers.gateway import docs, document, generation, listing, openapi, routes
from servers.gateway.admission import Admission
from servers.gateway.answer import Answer
from servers.gateway.audit import Audit
from servers.gateway.deadline import Deadline
from servers.gateway.errors import ApiError
from servers.gateway.forward import forward
from servers.gateway.keys import Key, Keyring
from servers.gateway.quarantine import Quarantine
from servers.gateway.recent import Recent
from servers.gateway.request import ClientGone, Receive, Request, Scope, Send
from servers.gateway.usage import Usage, usage_in
from servers.metrics.hardware import HardwareCollector
from servers.metrics.models import ModelCollector
from servers.metrics.requests import RequestMetrics
from servers.model import Model
from servers.supervisor import Supervisor
from servers.telemetry import Sampler, tracing

if TYPE_CHECKING:
    from servers.gateway.spans import RequestSpan, Spans

_log = logging.getLogger("litport.gateway")

_UNRECORDED = frozenset({"/health", "/ready"})
_WITHOUT_KEY = _UNRECORDED | docs.PATHS


@dataclass
class _Visit:
    """One request on its way: what is known of it so far."""

    request: Request
    answer: Answer
    begin_s: float
    key: Key | None = None
    model: Model | None = None
    span: "RequestSpan | None" = None
    usage: Usage = field(default_factory=Usage)


class FrontDoor:
    """An ASGI application over the supervisor's models. `in_flight` counts the requests that are being answered."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: LitportSettings,
        keyring: Keyring,
        version: str,
        address: str,
        metrics_address: str | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._limits = settings.limits
        self._keyring = keyring
        self._routes = routes.Routes(supervisor)
        self.admissions = {name: Admission(model) for name, model in supervisor.models.items()}
        self._quarantines = {name: Quarantine(model) for name, model in supervisor.models.items()}
        self._recent = {name: Recent() for name in supervisor.models}
        self._audit = Audit(settings.telemetry.audit_file)
        self._spans = _spans()
        self._openapi = openapi.Document(version)
        self._about = listing.About(version, address, metrics_address, time.time())
        self._sampler = sampler
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.metrics = RequestMetrics()
        self.metrics.registry.register(ModelCollector(supervisor.models, self.admissions, version))
        if sampler is not None:
            self.metrics.registry.register(HardwareCollector(sampler))

    async def drain(self) -> None:
        """Refuse new requests from now on, and return once none is being answered."""
        self._draining = True
        await self._idle.wait()

    def close(self) -> None:
        """Leave no file open, and no span unsent if its collector takes it."""
        self._audit.close()
        if self._spans is not None:
            self._spans.close()

    def reload(self, settings: LitportSettings, keyring: Keyring) -> None:
        """From now on hold requests to these limits and keys; those in flight go on under the old ones."""
        self._limits = settings.limits
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begin_s = time.monotonic()
        request = Request.from_scope(scope)
        visit = _Visit(request, Answer(send, request.id), begin_s)
        if self._spans is not None and request.path not in _UNRECORDED:
            visit.span = self._spans.begin(request, self._routes.label(request.path))
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
            self.metrics.rejections.labels(visit.model.name if visit.model else "", error.code).inc()
            if visit.span is not None:
                visit.span.fail(error.code)
            await visit.answer.fail(error)
        except ClientGone:
            _log.debug("%s %s: the client left", request.method, request.path, extra=_about(visit))
        except Exception:  # the last resort: it is our fault, and the client must still get an answer
            failed = 500
            _log.exception("%s %s failed", request.method, request.path, extra=_about(visit))
            await visit.answer.fail(ApiError(500, "the server failed; see its log", code="internal_error"))
        if request.path not in _UNRECORDED:
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
            self.admissions,
            self._recent,
            in_flight=self.in_flight,
            samples=self._sampler.fresh if self._sampler else (),
            nvml_error=self._sampler.nvml_error if self._sampler else None,
        )

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
                self._turn(visit, model, key, tokens),
                self._quarantines[model.name].watch(path, body, request.id),
            ):
                await self._hand_over(visit, body, model, path)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
            visit.usage = usage_in(visit.answer.tail)
            key.leave(tokens, _used_tokens(visit, tokens))

    @contextlib.asynccontextmanager
    async def _turn(self, visit: _Visit, model: Model, key: Key, tokens: int) -> AsyncIterator[None]:
        asked_s = time.monotonic()
        if visit.span is not None:
            visit.span.wait()
        async with self.admissions[model.name].turn(key.name, tokens):
            if visit.span is not None:
                visit.span.admit()
            self.metrics.of(model.name).queue_s.observe(time.monotonic() - asked_s)
            yield

    async def _hand_over(self, visit: _Visit, body: bytes, model: Model, path: str) -> None:
        times = self.metrics.of(model.name)
        visit.answer.on_gap = times.inter_chunk_s.observe
        trace = None if visit.span is None else visit.span.send(path)
        sent_s = time.monotonic()
        try:
            await forward(visit.request, body, model, path, visit.answer, trace)
        finally:
            if visit.span is not None:
                visit.span.receive(visit.answer.status)
            times.upstream_s.observe(time.monotonic() - sent_s)

    def _record(self, visit: _Visit, failed: int | None) -> None:
        """Count the request, and note it for the audit. None as status: the client left before there was one."""
        spent_s = time.monotonic() - visit.begin_s
        status = visit.answer.status or failed
        model = visit.model.name if visit.model else ""
        key = visit.key.name if visit.key else ""
        first_s = visit.answer.first_event_s
        ttft_s = None if first_s is None else first_s - visit.begin_s
        if visit.span is not None:
            visit.span.end(status, model, key, ttft_s)
        self.metrics.requests.labels(model, self._routes.label(visit.request.path), status or "none", key).inc()
        if model:
            times = self.metrics.of(model)
            times.request_s.observe(spent_s)
            if ttft_s is not None:
                times.first_token_s.observe(ttft_s)
            self.metrics.count_tokens(model, key, visit.usage)
            self._recent[model].note(
                time.monotonic(),
                spent_s,
                ttft_s,
                failed=failed is not None or status is None or status >= 400,
                input_tokens=visit.usage.input_tokens,
                output_tokens=visit.usage.output_tokens,
            )
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


def _about(visit: _Visit) -> dict[str, Any]:
    """The fields of a log line about this request."""
    return {"model": visit.model.name if visit.model else None, "request_id": visit.request.id}


def _spans() -> "Spans | None":
    """What makes spans, where the standard variables ask for traces; without them nothing of the SDK is imported."""
    if not tracing.is_on(os.environ):
        return None
    from servers.gateway.spans import Spans
    from servers.telemetry import otlp

    return Spans(otlp.provider("front door"))


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
