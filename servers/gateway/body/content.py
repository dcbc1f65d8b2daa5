"""What the front door reads of a body: the model that it names, and an estimate of what it costs.

Wrong input is rejected here with a 4xx that names the field, what was expected and what came. So no engine answers it
with a 500, and no engine reads a body in another way than the front door. A body is never changed: the model's process
gets the same bytes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.body import cost, sampling, strict_json
from servers.gateway.body.rejection import quote, reject_type


class BodyKind(Enum):
    """What the body of a route is, and so how it is read."""

    UNREAD = auto()
    """The route takes no body; one that is sent is not read."""
    OPAQUE = auto()
    """Read, and passed on without a look."""
    ANY = auto()
    """The model decides: any JSON value, read strictly, or anything else, which is not looked at."""
    OBJECT = auto()
    """A JSON object, read strictly, or a multipart form; its field `model` names the model."""
    TENSORS = auto()
    """JSON, maybe with bare NaN, and maybe with binary tensors behind it; the model's process reads it."""
    GENERATION = auto()
    """A JSON object with sampling parameters, which are checked too."""


@dataclass(frozen=True)
class Content:
    """The `model` that a body names (None: none), the tokens that it may cost (see `cost`), and its JSON object.

    `prompts` is how many there are, and `choices` how many answers all of them get. `is_opaque` is whether only the
    model's process can tell if the body is well-formed.
    """

    model: str | None
    tokens: int
    document: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    is_opaque: bool = False
    prompts: int = 1
    choices: int = 1


NO_CONTENT = Content(None, 0)
# A body that is not priced: a form, a picture, whatever a LitAPI takes.
_UNPRICED = Content(None, 1)
_TENSORS = Content(None, 1, is_opaque=True)
_MULTIPART = "multipart/form-data"
_FORM_MODEL = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,512})\r\n--')


def read_content(body: bytes, content_type: str, limits: Limits, kind: BodyKind) -> Content:
    """Read a body strictly. Raises ApiError 400 for what it holds, 415 for its content type."""
    if kind in (BodyKind.UNREAD, BodyKind.OPAQUE):
        return NO_CONTENT
    if kind is BodyKind.TENSORS:
        return _TENSORS
    media_type = content_type.partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    if kind is BodyKind.ANY:
        if is_json:
            strict_json.parse(body, limits.max_json_depth, only_object=False)
        return _UNPRICED  # the path names the model; a field of that name is the model's own
    if media_type == _MULTIPART and kind is BodyKind.OBJECT:
        return Content(_form_model(body), 1)
    if media_type and not is_json:
        message = f"expected a body of application/json, got content type {quote(media_type)}"
        raise ApiError(415, message, code="unsupported_media_type")
    document = strict_json.parse(body, limits.max_json_depth, only_object=True)
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        reject_type("model", "a string", model)
    if kind is BodyKind.GENERATION:
        sampling.check(document, limits)
    prompts = cost.prompt_count(document)
    return Content(model, cost.tokens(document), document, prompts=prompts, choices=prompts * cost.choices(document))


def _form_model(body: bytes) -> str | None:
    match = _FORM_MODEL.search(body)
    return match.group(1).decode(errors="replace").strip() if match else None
