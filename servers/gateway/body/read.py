"""A request's document: what the front door needs to know of a body, and nothing more.

It exists so that bad input is answered at once with a 4xx that names the field, what was expected and what came, and is
neither parsed differently behind the door nor answered by an engine's 500. It refuses to change a document: what is
accepted goes on as the same bytes.
"""

from dataclasses import dataclass

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.body import cost, strict_json
from servers.gateway.body import sampling as generation
from servers.gateway.body.refusals import quoted, refuse_type
from servers.gateway.request import model_in


@dataclass(frozen=True)
class Document:
    """What the front door needs to know of a body: the `model` it names, and what it may cost.

    `tokens` is an estimate (see `cost`).
    """

    model: str | None
    tokens: int


def read(
    body: bytes, content_type: str, limits: Limits, *, generates: bool = False, any_value: bool = False
) -> Document:
    """Read a body strictly. Raises ApiError 400 for what it holds, 415 for its content type.

    `generates` checks the sampling parameters, too. `any_value` is for routes whose model decides what it takes: there
    JSON may be any value, and a body that is not declared to be JSON is not looked at.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if media_type == "multipart/form-data" and not generates:
        return Document(None if any_value else model_in(body, "multipart/form-data"), 1)
    if any_value and not is_json:
        return Document(None, 1)
    if media_type and not is_json:
        message = f"expected a body of application/json, got content type {quoted(media_type)}"
        raise ApiError(415, message, code="unsupported_media_type")
    document = strict_json.parse(body, limits.max_json_depth, only_object=not any_value)
    if not isinstance(document, dict):
        return Document(None, 1)
    model = document.get("model")
    if any_value:
        return Document(None, 1)  # the path names the model; a field of that name is the model's own
    if model is not None and not isinstance(model, str):
        refuse_type("model", "a string", model)
    if generates:
        generation.check(document, limits)
    return Document(model, cost.tokens(document))
