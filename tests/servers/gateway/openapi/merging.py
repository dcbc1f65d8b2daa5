"""Documents of models that are up, and what is in them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from servers.engines.base import Card
from servers.gateway.openapi.merge import merge
from servers.gateway.routes import openai, registry
from servers.models.model import Model
from tests.services.supervision import model_of
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


def up(name: str, document: Mapping[str, Any], *routes: str, **card: Any) -> Model:
    """A model that is up and documents this of itself."""
    model = model_of(TinyEngine(name))
    model.choose().card = Card(frozenset(routes), openapi=document, **card)
    return model


def chatting(name: str, document: Mapping[str, Any], *adapters: str) -> Model:
    routes = openai.PATHS & set(document["paths"])
    return up(name, document, *routes, listing=tuple({"id": entry} for entry in (name, *adapters)))


def taking(schema: Mapping[str, Any], path: str = "/v1/embeddings") -> dict[str, Any]:
    """What a child documents that takes this as the schema `Request`."""
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}}}
    operation = {"operationId": "answer", "requestBody": body, "responses": {"200": {"description": "so"}}}
    return {"openapi": "3.1.0", "paths": {path: {"post": operation}}, "components": {"schemas": {"Request": schema}}}


def merged(*models: Model) -> dict[str, Any]:
    """The document of these models, which is valid whatever they are."""
    document = merge(models, "1", registry.routes())
    validate(document)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert sorted(set(names)) == sorted(names)
    assert all(re.fullmatch(r"[a-z][a-zA-Z0-9_]*", name) for name in names), names
    assert all(target in document["components"]["schemas"] for target in references(document["paths"]))
    return document


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def references(part: Any) -> Iterator[str]:
    """The schemas that are referred to, by discriminators too."""
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        if isinstance(value, str) and value.startswith("#/components/schemas/"):
            yield value.rpartition("/")[2]
        else:
            yield from references(value)


def body_of(document: Mapping[str, Any], path: str, media_type: str = "application/json") -> dict[str, Any]:
    """The schema of a route's body, looked up where it is a reference."""
    schema = document["paths"][path]["post"]["requestBody"]["content"][media_type]["schema"]
    return looked_up(document, schema)


def looked_up(document: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return dict(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema)


def problems(document: Mapping[str, Any], response: httpx.Response, path: str) -> list[str]:
    """What an answer has that the document does not allow."""
    method = response.request.method.lower()
    responses = document["paths"][path][method]["responses"]
    told = responses.get(str(response.status_code)) or responses[f"{response.status_code // 100}XX"]
    schema = told["content"][response.headers["content-type"].partition(";")[0]]["schema"]
    validator = OAS31Validator({**schema, "components": document["components"]})
    return [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(response.json())]
