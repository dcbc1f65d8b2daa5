"""What a server elsewhere says of a model: its routes by the OpenAPI document, and its entry in the list of models.

A server's document has the routes of all of its models. Litport's names the models of each route, so that one of them
can be told from its neighbours.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from servers.engines.remote.connection import PREDICT

_SCHEMAS_AT = "#/components/schemas/"
_OTHER_REFERENCE = re.compile(rf'"\$ref": "(?!{_SCHEMAS_AT})')
# What callers may know of a model; others name folders and permissions of its server.
_ENTRY = ("object", "created", "owned_by", "max_model_len")


@dataclass(frozen=True)
class Offer:
    """The paths of a model; their operations and schemas, as far as another document can hold them.

    `predict_path` is that of a LitServe model of another Litport, and `example` a request for it.
    """

    paths: tuple[str, ...] = ()
    operations: Mapping[str, Any] = field(default_factory=dict)
    schemas: Mapping[str, Any] = field(default_factory=dict)
    predict_path: str | None = None
    example: Any = None

    def document(self, paths: Collection[str]) -> dict[str, Any]:
        """The OpenAPI document of these paths and the predict path."""
        operations = {
            path: {"post": post} for path, post in self.operations.items() if path in {*paths, self.predict_path}
        }
        return {"paths": operations, "components": {"schemas": self.schemas}}


def read(document: Mapping[str, Any] | None, model: str) -> Offer:
    """What the server's OpenAPI document offers of this model; one that is not read offers nothing."""
    try:
        return _read(document, model) if document else Offer()
    except (AttributeError, KeyError, TypeError):  # of another form than OpenAPI's
        return Offer()


def entry(name: str, model: str, listing: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry in the list of models under this name, by that of the server's `model` where it has one."""
    entries = (listing or {}).get("data")
    own = (
        [item for item in entries if isinstance(item, Mapping) and item.get("id") == model]
        if isinstance(entries, list)
        else []
    )
    known = {key: own[0][key] for key in _ENTRY if key in own[0]} if own else {}
    return {"id": name, "object": "model", "created": 0, "owned_by": "remote", **known}


def _read(document: Mapping[str, Any], model: str) -> Offer:
    posts: dict[str, Any] = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    predict_path = None
    if document.get("info", {}).get("title") == "Litport":
        posts = {
            path: post
            for path, post in posts.items()
            if path == PREDICT + model or model in _models(document, post.get("requestBody", {}))
        }
        predict_path = PREDICT + model if PREDICT + model in posts else None
    operations = {path: _plain(post) for path, post in posts.items()}
    portable = {path: post for path, post in operations.items() if not _OTHER_REFERENCE.search(json.dumps(post))}
    media = posts[predict_path].get("requestBody", {}).get("content", {}) if predict_path else {}
    example = media.get("application/json", {}).get("example")
    return Offer(tuple(posts), portable, document.get("components", {}).get("schemas", {}), predict_path, example)


def _plain(post: Mapping[str, Any]) -> dict[str, Any]:
    """The operation without its parameters, tags and errors."""
    responses = {status: answer for status, answer in post.get("responses", {}).items() if status.startswith("2")}
    kept = {key: post[key] for key in ("operationId", "summary", "requestBody") if key in post}
    return {**kept, "responses": responses}


def _models(document: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    """The models that a request body may name, by Litport's document."""
    schemas = [media.get("schema", {}) for media in body.get("content", {}).values()]
    while schemas:
        schema = schemas.pop()
        reference = schema.get("$ref", "").removeprefix(_SCHEMAS_AT)
        if reference:
            schemas.append(document.get("components", {}).get("schemas", {}).get(reference, {}))
        schemas += [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        yield from schema.get("properties", {}).get("model", {}).get("examples", ())
