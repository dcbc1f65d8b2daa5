"""The front door: the ASGI application on the public port.

It finds the model that a request is for and hands the request over. It owns what neither engine gives: one key check,
one error shape, one list of models, readiness, request ids. It refuses to know the content of a request beyond its
`model`, and any route that is not listed here or on a model's card.
"""

import asyncio
import hmac
import logging
import re
import time
from urllib.parse import parse_qs

from configs.settings import LitportSettings
from servers.engines import vllm
from servers.gateway import listing
from servers.gateway.answer import Answer
from servers.gateway.errors import ApiError
from servers.gateway.forward import forward
from servers.gateway.metrics import Metrics
from servers.gateway.request import ClientGone, Receive, Request, Scope, Send, model_in
from servers.model import Model, State
from servers.supervisor import Supervisor

_log = logging.getLogger("litport.gateway")

_WITHOUT_KEY = frozenset({"/health", "/ready"})
_TOLD = frozenset({"/health", "/ready", "/status", "/v1/models"})
_MODEL = "/v1/models/"
_PREDICT = "/predict/"
# vLLM keeps responses (where its store is switched on) under their id; the model is not in the path.
_RESPONSES = "/v1/responses"
_KEPT_RESPONSE = re.compile(r"/v1/responses/[A-Za-z0-9_-]+(/cancel)?")


class FrontDoor:
    """An ASGI application over the supervisor's models. `in_flight` counts the requests that models are answering."""

    def __init__(self, supervisor: Supervisor, settings: LitportSettings, version: str, address: str) -> None:
        self._supervisor = supervisor
        self._limits = settings.limits
        self._keys = [key.get_secret_value().encode() for key in settings.auth.api_keys]
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request.from_scope(scope)
        answer = Answer(send, request.id)
        try:
            if request.path not in _WITHOUT_KEY:
                self._check_key(request)
            self._check_route(request)
            if _is_told(request.path):
                await self._tell(request.path, answer)
            else:
                await self._pass_on(request, receive, answer)
        except ApiError as error:
            await answer.fail(error)
        except ClientGone:
            _log.debug("%s %s: the client left", request.method, request.path)
        except Exception:  # the last resort: it is our fault, and the client must still get an answer
            _log.exception("%s %s failed (request %s)", request.method, request.path, request.id)
            await answer.fail(ApiError(500, "the server failed; see its log", code="internal_error"))

    def _check_key(self, request: Request) -> None:
        if not self._keys:
            return
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        # Every key is compared, and each in constant time, so that the time taken says nothing.
        matches = [hmac.compare_digest(given.encode(), key) for key in self._keys]
        if not any(matches):
            message = "no valid API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            raise ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})

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
                    listing.status(supervisor, self._address, self._started_at, self.in_flight, self._version)
                )
            case "/v1/models":
                await answer.document(listing.model_list(supervisor))
            case _:
                wanted = path.removeprefix(_MODEL)
                await answer.document(listing.entry(self._named(wanted), wanted))

    async def _pass_on(self, request: Request, receive: Receive, answer: Answer) -> None:
        """Find the model and the path in its process, and forward."""
        begin_s = time.perf_counter()
        body = await request.read_body(receive, self._limits.max_body_bytes)
        if request.path.startswith(_PREDICT):
            model = self._serving(self._named(request.path.removeprefix(_PREDICT)))
            path = _predict_path(model)
        elif _KEPT_RESPONSE.fullmatch(request.path):
            asked = parse_qs(request.query.decode("latin-1")).get("model")
            model, path = self._for_route(asked[0] if asked else None, _RESPONSES), request.path
        else:
            model = self._for_route(model_in(body, request.content_type), request.path)
            path = request.path
        self.in_flight += 1
        self._idle.clear()
        refused: int | None = None
        sent_s = time.perf_counter()
        try:
            await forward(request, body, model, path, self._limits.request_timeout_s, receive, answer)
        except ApiError as error:
            refused = error.status
            raise
        finally:
            end_s = time.perf_counter()
            self.metrics.upstream_s.labels(model.name).observe(end_s - sent_s)
            self.metrics.request_s.labels(model.name).observe(end_s - begin_s)
            self.metrics.requests.labels(model.name, answer.status or refused or "none").inc()
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    def _check_route(self, request: Request) -> None:
        """Refuse what is not on the port: 404 for the path, 405 for the method."""
        path = request.path
        told, kept = _is_told(path), _KEPT_RESPONSE.fullmatch(path)
        if not (told or kept or path in vllm.ROUTES or path.startswith(_PREDICT) or self._is_on_a_card(path)):
            message = f"{request.method} {path} is not served here; GET /status lists models and routes"
            raise ApiError(404, message, code="unknown_route")
        allowed = "GET" if told else "POST"
        also = "HEAD" if told else "GET" if kept else None
        if request.method not in (allowed, also):
            message = f"{path} takes {allowed}, not {request.method}"
            raise ApiError(405, message, code="method_not_allowed", headers={"allow": allowed})

    def _is_on_a_card(self, path: str) -> bool:
        return any(model.card and path in model.card.routes for model in self._supervisor.models.values())

    def _named(self, name: str) -> Model:
        """The model of that name, or the one whose process lists it (an adapter)."""
        models = self._supervisor.models
        if name in models:
            return models[name]
        for model in models.values():
            if model.card and any(entry["id"] == name for entry in model.card.listing):
                return model
        message = f"The model '{name}' does not exist; there are: {', '.join(models) or 'none'}"
        raise ApiError(404, message, code="model_not_found", param="model")

    def _for_route(self, name: str | None, route: str) -> Model:
        """The ready model of that name; without a name the only one that has the route."""
        models = self._supervisor.models.values()
        if name is None:
            able = [model for model in models if model.card and route in model.card.routes]
            if len(able) != 1:
                message = f"name a model: {', '.join(model.name for model in able or models)}"
                raise ApiError(400, message, code="missing_model", param="model")
            return self._serving(able[0])
        model = self._serving(self._named(name))
        assert model.card is not None
        if route not in model.card.routes:
            raise _unsupported(model, route)
        return model

    def _serving(self, model: Model) -> Model:
        if self._draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"connection": "close"})
        if model.state is not State.READY:
            message = f"model '{model.name}' is {model.state.value}: {model.detail}".rstrip(": ")
            headers = {} if model.state is State.FAILED else {"retry-after": "5"}
            raise ApiError(503, message, code="model_not_ready", param="model", headers=headers)
        return model


def _is_told(path: str) -> bool:
    """Whether the front door answers this path itself."""
    return path in _TOLD or path.startswith(_MODEL)


def _predict_path(model: Model) -> str:
    assert model.card is not None
    if model.card.predict_path is None:
        raise _unsupported(model, "/predict")
    return model.card.predict_path


def _unsupported(model: Model, route: str) -> ApiError:
    message = f"model '{model.name}' does not serve {route}; it serves {', '.join(listing.paths(model))}"
    return ApiError(400, message, code="unsupported_route", param="model")
