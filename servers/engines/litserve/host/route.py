"""An API's route as LitServe declares it to FastAPI: its document, its parsing, and a short way around both.

What FastAPI makes of the signatures of decode_request and encode_response is what LitServe's users know: typed bodies
are validated, refused ones are a 422 with its words, forms become `FormData`. So FastAPI itself parses here whatever is
not plain JSON or fails, and the common case goes around it.
"""

from collections.abc import Awaitable, Callable
from typing import Any, get_origin, get_type_hints

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, TypeAdapter

from configs.errors import UserError
from servers.engines.litserve.host.encode import Encode, encoder

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_TYPES = "expected application/json, or a file in a form (multipart/form-data)"
LONG_WAY = object()
"""The short way cannot parse this body; it need not be wrong."""

Take = Callable[[Any], Awaitable[Response]]

_decode_json = msgspec.json.Decoder().decode


class Route:
    """The route of `api` without a spec; `take` gets each request that FastAPI has parsed."""

    def __init__(self, api: Any, take: Take) -> None:
        request_type = _hint(api.decode_request, "request", Request)
        response_type = _hint(api.encode_response, "return", Response)
        self.app = FastAPI()

        async def endpoint_handler(request: request_type) -> response_type:  # type: ignore[valid-type]
            return await take(await _payload(request) if request_type is Request else request)

        self.app.add_api_route(api.api_path, endpoint_handler, methods=["POST"])
        response_model = getattr(self.app.routes[-1], "response_model", None)
        self.encode: Encode = encoder(
            TypeAdapter(response_model) if response_model is not None and not api.stream else None
        )
        self._is_untyped = request_type is Request
        self.may_have_files = not self._is_untyped  # else they are closed by nobody
        self._adapter: TypeAdapter[Any] | None = None
        if get_origin(request_type) is dict or (
            isinstance(request_type, type) and issubclass(request_type, dict | BaseModel)
        ):
            self._adapter = TypeAdapter(request_type)

    def encode_for(self, _value: Any) -> Encode:
        """The encoder of the answer to this request."""
        return self.encode

    def parse(self, media_type: str, body: bytes) -> Any:
        """What decode_request gets, or LONG_WAY; `media_type` is in lower case, without parameters."""
        if self._is_untyped:
            if media_type in FORMS:
                return LONG_WAY
        elif self._adapter is None or media_type != "application/json":
            return LONG_WAY
        try:
            value = _decode_json(body)
            return value if self._adapter is None else self._adapter.validate_python(value, from_attributes=True)
        except Exception:  # a validator of the API's own may raise anything; FastAPI does with it as it does
            return LONG_WAY


def document_app(api: Any) -> FastAPI:
    """An application with the API's routes, for its document."""
    if api.spec is None:
        return Route(api, _never).app
    app = FastAPI()
    for path, endpoint, methods in api.spec.endpoints:
        app.add_api_route(path, endpoint=endpoint, methods=methods)
    return app


async def _never(_value: Any) -> Response:
    raise NotImplementedError  # the application of a document answers no request


async def _payload(request: Request) -> Any:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        return await request.form() if media_type in FORMS else await request.json()
    except HTTPException:
        raise
    except (ValueError, RecursionError, KeyError) as problem:  # KeyError: a form without a boundary
        kind = "a form" if media_type in FORMS else "JSON"
        reason = "it names no boundary" if isinstance(problem, KeyError) else problem
        hint = (
            "" if media_type in FORMS or "json" in media_type else f"; it came as {media_type or 'no type'}, {_TYPES}"
        )
        raise HTTPException(400, f"the body is not {kind}: {reason}{hint}") from None


def _hint(method: Any, name: str, default: Any) -> Any:
    """The type of one of its parameters, or of what it returns. Raises UserError for one that nobody imports."""
    if name not in method.__annotations__:
        return default
    holder = type("Holder", (), {"__annotations__": {name: method.__annotations__[name]}})
    try:
        # LitServe knows these two without an import.
        known = {"Request": Request, "Response": Response} | method.__globals__
        return get_type_hints(holder, known, include_extras=True)[name]
    except NameError as problem:
        raise UserError(
            f"{method.__qualname__}: its type {problem.name!r} exists for type checkers only; import it outside of "
            "`if TYPE_CHECKING`"
        ) from None
