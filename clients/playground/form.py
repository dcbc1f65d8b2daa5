"""A form for any API: the fields of its schema in the platform's OpenAPI document, or of its example, or plain JSON.

It reads only the part of the document that a form needs. An API whose schema it does not understand gets one box for a
body of JSON.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clients.playground.platform import Problem
from clients.playground.request import Request

Kind = Literal["text", "number", "integer", "boolean", "choice", "json", "picture", "file"]
_KINDS: Mapping[str, Kind] = {"string": "text", "number": "number", "integer": "integer", "boolean": "boolean"}


@dataclass(frozen=True)
class Field:
    """One value of a request. A `json` field that `may_be_text` takes a value that is not JSON as text."""

    name: str
    kind: Kind
    default: Any = None
    required: bool = False
    choices: Sequence[Any] = ()
    may_be_text: bool = False
    description: str = ""

    def read(self, value: Any) -> Any:
        """The value to send for the input; None: no value. Raises Problem."""
        if value is None or (isinstance(value, str) and not value.strip() and self.kind != "text") or value == "":
            if self.required:
                raise Problem(f"{self.name or 'The request'}: is needed, and nothing was entered.")
            return None
        if self.kind in ("number", "integer"):
            return self._number(str(value).strip())
        if self.kind != "json":
            return value
        try:
            return json.loads(value)
        except ValueError as problem:
            if self.may_be_text:
                return value
            raise Problem(f"{self.name or 'The request'}: expected JSON ({problem}).") from None

    def _number(self, text: str) -> float:
        for kind in (int,) if self.kind == "integer" else (int, float):
            with contextlib.suppress(ValueError):
                number: float = kind(text)
                if math.isfinite(number):
                    return number
        expected = "a whole number" if self.kind == "integer" else "a number"
        raise Problem(f"{self.name}: expected {expected}, got {text!r}.")


@dataclass(frozen=True, eq=False)  # Gradio hashes its state, and defaults may be lists
class Form:
    """The fields of a request to `path`: of a JSON object or of an upload. A field without a name is the whole body."""

    path: str
    fields: tuple[Field, ...]

    @property
    def uploads(self) -> bool:
        """Whether the request is a form with files."""
        return any(field.kind in ("picture", "file") for field in self.fields)

    def as_json(self) -> "Form":
        """The same request as one box of JSON, filled with the defaults of the fields."""
        if self.uploads or not self.fields or not self.fields[0].name:
            return self
        body = {field.name: field.default for field in self.fields if field.default is not None}
        return Form(self.path, (Field("", "json", body, required=True),))

    def request(self, values: Sequence[Any]) -> Request:
        """The request with these inputs, one for each field. Raises Problem that names the field."""
        inputs = {
            field.name: (field, value)
            for field, raw in zip(self.fields, values, strict=True)
            if (value := field.read(raw)) is not None
        }
        files = {name: Path(value) for name, (field, value) in inputs.items() if field.kind in ("picture", "file")}
        if files:
            fields = {name: _form_text(value) for name, (_, value) in inputs.items() if name not in files}
            return Request(self.path, fields=fields, files=files)
        values_by_name = {name: value for name, (_, value) in inputs.items()}
        return Request(self.path, values_by_name.get("", values_by_name))


def form_of(document: Mapping[str, Any], path: str) -> Form:
    """The form for `POST path`, by the platform's OpenAPI document, however incomplete that is."""
    operation = document.get("paths", {}).get(path, {}).get("post", {})
    content = _resolve(document, operation.get("requestBody", {})).get("content", {})
    upload = content.get("multipart/form-data", {})
    fields = _fields(document, upload.get("schema", {}), upload.get("example"))
    if any(field.kind in ("picture", "file") for field in fields):
        return Form(path, fields)
    media = content.get("application/json", {})
    schema = media.get("schema", {})
    example = media.get("example", _resolve(document, schema).get("example"))
    fields = _fields(document, schema, example)
    return Form(path, fields or (Field("", "json", example, required=True),))


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any], example: Any) -> tuple[Field, ...]:
    schema = _resolve(document, schema)
    examples = example if isinstance(example, dict) else {}
    properties = schema.get("properties") or {name: _schema_of(value) for name, value in examples.items()}
    required = schema.get("required", list(examples) if "properties" not in schema else [])
    return tuple(
        _field(document, name, part, examples.get(name), name in required) for name, part in properties.items()
    )


def _field(document: Mapping[str, Any], name: str, schema: Mapping[str, Any], example: Any, required: bool) -> Field:
    part = _resolve(document, schema)
    description = str(part.get("description", ""))
    options = [_resolve(document, option) for option in part.get("anyOf", part.get("oneOf", []))]
    options = [option for option in options if option.get("type") != "null"]
    default = example if example is not None else part.get("default")
    if len(options) == 1:
        part = options[0]
    types = part.get("type")
    if isinstance(types, list):
        types = [kind for kind in types if kind != "null"]
        types = types[0] if len(types) == 1 else "any"
    if part.get("enum"):
        return Field(name, "choice", default, required, tuple(part["enum"]), description=description)
    if part.get("format") == "binary" or "contentMediaType" in part:
        picture = name == "image" or str(part.get("contentMediaType", "")).startswith("image/")
        return Field(name, "picture" if picture else "file", None, required, description=description)
    may_be_text = any(option.get("type") == "string" for option in options) or not part
    return Field(name, _KINDS.get(str(types), "json"), default, required, (), may_be_text, description)


def _schema_of(value: Any) -> dict[str, Any]:
    """The schema that a value of an example suggests. A text may stand for any JSON, as in the `input` of the echo."""
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number")):
        if isinstance(value, kind):
            return {"type": "number" if name == "integer" else name}
    return {} if isinstance(value, str) else {"type": "object"}


def _resolve(document: Mapping[str, Any], schema: Any) -> Mapping[str, Any]:
    """The schema after its references and an `allOf` with one entry."""
    for _ in range(10):
        if not isinstance(schema, Mapping):
            return {}
        inner = schema.get("allOf")
        if "$ref" in schema:
            target: Any = document
            for step in str(schema["$ref"]).removeprefix("#/").split("/"):
                name = step.replace("~1", "/").replace("~0", "~")
                target = target.get(name, {}) if isinstance(target, Mapping) else {}
            schema = target
        elif isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], Mapping):
            schema = {**inner[0], **{name: value for name, value in schema.items() if name != "allOf"}}
        else:
            return schema
    return {}


def _form_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
