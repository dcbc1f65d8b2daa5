"""Routes: which paths are on the port, and which model and path in its process a request leads to.

Everything that is not listed here or on a ready model's card is a 404, so that no engine's other routes (sleep,
profiling, LoRA loading, /invocations) can be reached. Paths are compared as they were sent, never decoded: there is
only one way to write each. It reads no request body.
"""

import re
from urllib.parse import parse_qs, unquote

from servers.engines.vllm import engine as vllm
from servers.errors import ApiError
from servers.gateway import listing
from servers.gateway.openapi import docs_page as docs
from servers.gateway.request import Request
from servers.models.instance import State
from servers.models.model import Model
from servers.models.supervisor import Supervisor

PREDICT = "/predict/"
_TOLD = frozenset({"/health", "/ready", "/status", "/v1/models", "/openapi.json", *docs.PATHS})
_MODEL = "/v1/models/"
# vLLM keeps responses (where its store is switched on) under their id; the model is not in the path.
_RESPONSES = "/v1/responses"
_KEPT_RESPONSE = re.compile(r"/v1/responses/[A-Za-z0-9_-]+(/cancel)?")


class Routes:
    """The paths of the supervisor's models and of the front door itself."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._models = supervisor.models

    def check(self, request: Request) -> None:
        """Refuse what is not on the port: ApiError 404 for the path, 405 for the method."""
        path = request.path
        told, kept = is_told(path), is_kept_response(path)
        if not (told or kept or path in vllm.ROUTES or path.startswith(PREDICT) or self._is_on_a_card(path)):
            message = f"{request.method} {path[:200]} is not served here; GET /status lists models and routes"
            raise ApiError(404, message, code="unknown_route")
        allowed = "GET" if told else "POST"
        also = "HEAD" if told else "GET" if kept else None
        if request.method not in (allowed, also):
            message = f"{path} takes {allowed}, not {request.method}"
            raise ApiError(405, message, code="method_not_allowed", headers={"allow": allowed})

    def label(self, path: str) -> str:
        """The path for statistics: one of a bounded list, `other` for what is not on the port."""
        if path.startswith(PREDICT):
            return PREDICT.rstrip("/")
        if path.startswith(_MODEL):
            return f"{_MODEL}{{model}}"
        if is_kept_response(path):
            return f"{_RESPONSES}/{{id}}"
        if path in docs.PATHS:
            return "/docs"
        return path if path in _TOLD or path in vllm.ROUTES or self._is_on_a_card(path) else "other"

    def find(self, request: Request, name: str | None) -> tuple[Model, str]:
        """The model that the request is for and the path in its process; `name` is the body's `model`.

        Raises ApiError: 404 for a model that does not exist, 400 for one that has no such route or is not named, 503
        for one that is not up.
        """
        path = request.path
        if path.startswith(PREDICT):
            model = self.named(path.removeprefix(PREDICT))
            _check_ready(model)
            return model, _predict_path(model)
        if is_kept_response(path):
            asked = parse_qs(request.query.decode("latin-1")).get("model")
            return self._for_route(asked[0] if asked else None, _RESPONSES), path
        return self._for_route(name, path), path

    def listed(self, path: str) -> tuple[Model, str]:
        """The model, and the name it is asked for by, of a path `/v1/models/<name>`; raises ApiError 404."""
        # The one place where a name may come encoded: the OpenAI SDK does so with the slash of `org/name`.
        name = unquote(path.removeprefix(_MODEL))
        return self.named(name), name

    def named(self, name: str) -> Model:
        """The model of that name, or the one whose process lists it (an adapter); raises ApiError 404."""
        if name in self._models:
            return self._models[name]
        for model in self._models.values():
            if model.card and any(entry["id"] == name for entry in model.card.listing):
                return model
        message = f"The model '{name[:128]}' does not exist; there are: {', '.join(self._models) or 'none'}"
        raise ApiError(404, message, code="model_not_found", param="model")

    def _is_on_a_card(self, path: str) -> bool:
        return any(model.card and path in model.card.routes for model in self._models.values())

    def _for_route(self, name: str | None, route: str) -> Model:
        """The ready model of that name; without a name the only one that has the route."""
        if name is None:
            able = [model for model in self._models.values() if model.card and route in model.card.routes]
            if len(able) != 1:
                message = f"name a model: {', '.join(model.name for model in able or self._models.values())}"
                raise ApiError(400, message, code="missing_model", param="model")
            model = able[0]
        else:
            model = self.named(name)
        _check_ready(model)
        assert model.card is not None
        if route not in model.card.routes:
            raise _unsupported(model, route)
        return model


def is_told(path: str) -> bool:
    """Whether the front door answers this path itself."""
    return path in _TOLD or path.startswith(_MODEL)


def is_kept_response(path: str) -> bool:
    """Whether the path is that of a response which vLLM has kept: there the body is empty."""
    return _KEPT_RESPONSE.fullmatch(path) is not None


def _check_ready(model: Model) -> None:
    instance = model.choose()
    if instance.state is not State.READY:
        # What a process said when it broke may hold what somebody asked: that is for /status.
        step = instance.detail.partition(":")[0]
        message = f"model '{model.name}' is {instance.state.value}: {step}".rstrip(": ")
        headers = {} if instance.state is State.FAILED else {"retry-after": str(instance.ready_in_s)}
        raise ApiError(503, message, code="model_not_ready", param="model", headers=headers)


def _predict_path(model: Model) -> str:
    assert model.card is not None
    if model.card.predict_path is None:
        raise _unsupported(model, "/predict")
    return model.card.predict_path


def _unsupported(model: Model, route: str) -> ApiError:
    message = f"model '{model.name}' does not serve {route}; it serves {', '.join(listing.paths(model))}"
    return ApiError(400, message, code="unsupported_route", param="model")
