"""What Litport does not serve of a LitAPI, said before its setup and with the setting that helps."""

import inspect
from typing import Any

from configs.errors import UserError
from servers.apis.reference import ASYNC_RULE, ATTRIBUTES, AUTHORIZE_RULE, DECODE_RULE, HIDING_RULE, STREAM_RULE


def refuse_class(api_class: type[Any], name: str) -> None:
    """Check the class called `name` before it is constructed. Raises UserError."""
    for attribute in ATTRIBUTES:
        if inspect.isroutine(getattr(api_class, attribute)):
            raise UserError(f"api {name!r}: {HIDING_RULE.format(name=attribute)}")


def refuse(api: Any, name: str, model: str) -> None:
    """Check the API called `name` of a model. Raises UserError for one that would never be ready, or answer wrongly."""
    if "request" not in inspect.signature(api.decode_request).parameters:
        raise UserError(f"api {name!r}: {DECODE_RULE}")
    if callable(getattr(api, "authorize", None)):
        raise UserError(f"api {name!r}: {AUTHORIZE_RULE}")
    methods = (api.decode_request, api.predict, api.encode_response)
    is_async = any(map(inspect.iscoroutinefunction, methods)) or any(map(inspect.isasyncgenfunction, methods))
    if is_async and not api.enable_async and type(api.loop).__module__.startswith("litserve."):
        raise UserError(f"api {name!r}: {ASYNC_RULE}")
    is_generator = inspect.isgeneratorfunction(api.predict) or inspect.isasyncgenfunction(api.predict)
    if api.spec is None and is_generator and not api.stream:
        raise UserError(f"api {name!r}: {STREAM_RULE} (models.{model}.stream)")
