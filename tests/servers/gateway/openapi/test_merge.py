"""The one OpenAPI document: true, valid, and of use to whoever generates a client from it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from servers.engines.base import Card
from servers.engines.vllm import engine as vllm
from servers.gateway.openapi import merge as openapi
from servers.models.model import Model
from tests.conftest import REPOSITORY, Platform
from tests.services import generated
from tests.services.supervision import model_of
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="session")
def of_vllm() -> dict[str, Any]:
    """What vLLM documents of a model that chats and hears."""
    command = [sys.executable, "-m", "tests.services.vllm_document", "generate", "transcription"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True, timeout=120)
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def live(small: Platform) -> dict[str, Any]:
    """The document of the running platform."""
    return dict(httpx.get(f"{small.url}/openapi.json", timeout=20).json())


def up(name: str, document: Mapping[str, Any], *routes: str, **card: Any) -> Model:
    """A model that is up and documents this of itself."""
    model = model_of(TinyEngine(name))
    model.choose().card = Card(frozenset(routes), openapi=document, **card)
    return model


def chatting(name: str, document: Mapping[str, Any], *adapters: str) -> Model:
    routes = vllm.ROUTES & set(document["paths"])
    return up(name, document, *routes, listing=tuple({"id": entry} for entry in (name, *adapters)))


def taking(schema: Mapping[str, Any], path: str = "/v1/embeddings") -> dict[str, Any]:
    """What a child documents that takes this as the schema `Request`."""
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}}}
    operation = {"operationId": "answer", "requestBody": body, "responses": {"200": {"description": "so"}}}
    return {"openapi": "3.1.0", "paths": {path: {"post": operation}}, "components": {"schemas": {"Request": schema}}}


def merged(*models: Model) -> dict[str, Any]:
    """The document of these models, which is valid whatever they are."""
    document = openapi.document(models, "1")
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


# What is told is true.


def test_the_document_of_a_running_platform_is_valid(live: dict[str, Any]) -> None:
    validate(live)


@pytest.mark.parametrize("path", ["/health", "/ready", "/status", "/v1/models", "/v1/models/{model}"])
def test_what_the_front_door_answers_is_as_documented(small: Platform, live: dict[str, Any], path: str) -> None:
    response = httpx.get(small.url + path.format(model="echo"), timeout=10)
    assert response.status_code == 200
    assert problems(live, response, path) == []


@pytest.mark.parametrize("required", ["version", "models"])
def test_an_answer_that_is_not_as_documented_would_be_noticed(
    small: Platform, live: dict[str, Any], required: str
) -> None:
    response = httpx.get(f"{small.url}/status", timeout=10)
    document = response.json()
    del document[required]
    wrong = httpx.Response(200, json=document, request=response.request)
    assert problems(live, wrong, "/status") == [f"[]: {required!r} is a required property"]


def test_every_example_works_as_it_stands_and_is_answered_as_documented(small: Platform, live: dict[str, Any]) -> None:
    tried = []
    for path, method, operation in operations(live):
        if method == "post":
            example = operation["requestBody"]["content"]["application/json"].get("example")
            if example is None:
                assert path == "/predict/squares", "only who names no example has none"
                continue
            response = httpx.post(small.url + path, json=example, timeout=60)
            assert response.status_code == 200, response.text
            assert path == "/predict/streams" or problems(live, response, path) == []
            tried.append(path)
    assert set(tried) == {
        "/v1/embeddings",
        *(f"/predict/{name}" for name in ("all-minilm-l6-v2", "dies", "echo", "efficientnet-lite0", "streams")),
    }


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/embeddings", {"model": "nobody", "input": "x"}, 404),
        ("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": []}, 422),
        ("/predict/echo", {}, 400),
        ("/predict/efficientnet-lite0", {"image": "!"}, 422),
    ],
)
def test_errors_are_as_documented(
    small: Platform, live: dict[str, Any], path: str, body: dict[str, Any], status: int
) -> None:
    response = httpx.post(small.url + path, json=body, timeout=60)
    assert response.status_code == status
    assert problems(live, response, path) == []


def test_vllms_and_anthropics_errors_fit_the_schema_too(live: dict[str, Any]) -> None:
    schema = live["components"]["schemas"]["litport.Error"]
    validator = OAS31Validator({**schema, "components": live["components"]})
    vllms = {"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 400}}
    anthropics = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}
    assert validator.is_valid(vllms)
    assert validator.is_valid(anthropics)
    assert not validator.is_valid({"error": "m"})


def test_a_picture_is_documented_as_a_file_in_a_form_and_as_base64(live: dict[str, Any]) -> None:
    path = "/predict/efficientnet-lite0"
    form = body_of(live, path, "multipart/form-data")
    assert form["required"] == ["image"]
    assert form["properties"]["image"]["format"] == "binary"
    assert form["properties"]["top_k"]["maximum"] == 1000
    assert body_of(live, path)["properties"]["image"]["type"] == "string"


def test_a_stranger_is_documented_by_its_annotation_or_else_takes_any_json(live: dict[str, Any]) -> None:
    assert body_of(live, "/predict/squares") == {"type": "object", "additionalProperties": {"type": "number"}}
    assert body_of(live, "/predict/dies") == {}
    content = live["paths"]["/predict/dies"]["post"]["requestBody"]["content"]
    assert content["application/json"]["example"] == {"input": 1}


def test_a_stream_without_a_content_type_is_documented_as_bytes(small: Platform, live: dict[str, Any]) -> None:
    answers = live["paths"]["/predict/streams"]["post"]["responses"]["200"]["content"]
    assert list(answers) == ["application/octet-stream"]
    answer = httpx.post(f"{small.url}/predict/streams", json={"from": 2}, timeout=20)
    assert "content-type" not in answer.headers
    assert answer.text == '{"number": 2}\n{"number": 1}\n'


def test_no_words_of_a_childs_code_are_told(live: dict[str, Any]) -> None:
    text = json.dumps(live)
    assert "Endpoint Handler" not in text
    assert "HTTPValidationError" not in text


# Several children in one document.


def test_vllms_document_is_valid_with_its_references_led_to_their_new_names(of_vllm: dict[str, Any]) -> None:
    document = merged(chatting("a-model", of_vllm))
    assert vllm.ROUTES & of_vllm["paths"].keys() <= document["paths"].keys()
    assert not {"/sleep", "/load", "/v1/load_lora_adapter", "/invocations"} & document["paths"].keys()
    assert document["paths"][CHAT]["post"]["operationId"] == "create_chat_completion"
    mappings = [
        target
        for schema in document["components"]["schemas"].values()
        for target in references(schema)
        if target not in document["components"]["schemas"]
    ]
    assert mappings == []


def test_an_answer_that_can_be_streamed_is_documented_in_both_forms(of_vllm: dict[str, Any]) -> None:
    document = merged(chatting("a-model", of_vllm))
    for path in (CHAT, "/v1/completions", "/v1/responses", "/v1/messages"):
        answers = document["paths"][path]["post"]["responses"]["200"]["content"]
        assert list(answers) == ["application/json", "text/event-stream"]
        assert answers["text/event-stream"]["schema"]["type"] == "string"


def test_a_sound_is_documented_as_a_file_in_a_form_which_the_front_door_takes(of_vllm: dict[str, Any]) -> None:
    form = body_of(merged(chatting("a-model", of_vllm)), "/v1/audio/transcriptions", "multipart/form-data")
    assert form["properties"]["file"]["type"] == "string"
    assert form["properties"]["model"]["examples"] == ["a-model"]


def test_models_that_share_a_route_are_all_named_with_their_adapters(of_vllm: dict[str, Any]) -> None:
    document = merged(chatting("one", of_vllm, "one-tuned"), chatting("two", of_vllm))
    model = body_of(document, CHAT)["properties"]["model"]
    assert model["examples"] == ["one", "two", "one-tuned"]
    assert model["description"] == "One of one, two, one-tuned"
    assert "one, two, one-tuned" in document["paths"][CHAT]["post"]["description"]
    example = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert example["model"] == "one"


def test_models_that_document_the_same_share_their_schemas(of_vllm: dict[str, Any]) -> None:
    one = merged(chatting("one", of_vllm))["components"]["schemas"]
    both = merged(chatting("one", of_vllm), chatting("two", dict(of_vllm)))["components"]["schemas"]
    assert both.keys() == one.keys()


def test_what_two_children_mean_by_one_name_is_kept_apart() -> None:
    one = {"type": "object", "properties": {"input": {"type": "string"}}}
    two = {"type": "object", "properties": {"input": {"type": "integer"}, "model": {"type": "string", "title": "M"}}}
    document = merged(
        up("one", taking(one), "/v1/embeddings"), up("two", taking(two), "/v1/embeddings"), up("third", taking(one))
    )
    schema = body_of(document, "/v1/embeddings")
    alternatives = [looked_up(document, alternative)["properties"] for alternative in schema["anyOf"]]
    assert [properties["input"]["type"] for properties in alternatives] == ["string", "integer"]
    assert [properties["model"]["examples"] for properties in alternatives] == [["one"], ["two"]]
    assert "third" not in json.dumps(document), "it has no route"


@pytest.mark.parametrize(("one", "two"), [("a/b", "a-b"), ("Model", "model"), ("litport", "x")])
def test_names_that_differ_in_little_do_not_share_schemas(one: str, two: str) -> None:
    schemas = [{"type": "object", "properties": {word: {"type": "string"}}} for word in ("first", "second")]
    first, second = (taking(schema, "/predict") for schema in schemas)
    models = up(one, first, predict_path="/predict"), up(two, second, predict_path="/predict")
    document = merged(*models)
    assert list(body_of(document, f"/predict/{one}")["properties"]) == ["first"]
    assert list(body_of(document, f"/predict/{two}")["properties"]) == ["second"]
    assert {"message", "type"} <= document["components"]["schemas"]["litport.ErrorDetail"]["properties"].keys()


def test_models_whose_names_make_one_word_get_methods_of_their_own() -> None:
    document = taking({"type": "object"}, "/predict")
    merged_document = merged(*(up(name, document, predict_path="/predict") for name in ("a.b", "a-b", "é")))
    names = {path: operation["operationId"] for path, _, operation in operations(merged_document)}
    assert names["/predict/a.b"] == "predict_a_b"
    assert names["/predict/a-b"] == "predict_a_b_2"


def test_a_field_called_model_of_an_apis_own_is_left_alone() -> None:
    schema = {"type": "object", "properties": {"model": {"type": "string", "description": "of a car"}}}
    document = merged(up("one", taking(schema, "/predict"), predict_path="/predict"))
    assert body_of(document, "/predict/one")["properties"]["model"]["description"] == "of a car"


def test_what_only_looks_like_a_title_or_a_reference_is_left_alone() -> None:
    data = {"title": "#/components/schemas/Request", "default": {"title": "x"}}
    inner = {"title": {"type": "string", "title": "Title"}, "default": {"$ref": "#/components/schemas/Request"}}
    schema = {"type": "object", "title": "Request", "properties": inner, "examples": [data], "default": data}
    document = merged(up("one", taking(schema, "/predict"), predict_path="/predict"))
    assert body_of(document, "/predict/one") == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "default": {"$ref": "#/components/schemas/one.Request"}},
        "examples": [data],
        "default": data,
    }


def test_an_apis_own_route_shows_its_own_example_with_the_models_name() -> None:
    path = "/v1/depths"
    card = {"predict_path": path, "example": {"picture": "x", "model": "canary"}}
    document = merged(up("one", taking({"type": "object"}, path), path, **card))
    for at in (path, "/predict/one"):
        content = document["paths"][at]["post"]["requestBody"]["content"]
        assert content["application/json"]["example"] == {"picture": "x", "model": "one"}


def test_a_model_that_is_not_up_is_not_in_it(of_vllm: dict[str, Any]) -> None:
    model = chatting("one", of_vllm)
    model.choose().card = None
    assert CHAT not in merged(model)["paths"]


def test_every_route_to_a_model_takes_a_deadline(live: dict[str, Any]) -> None:
    for _, method, operation in operations(live):
        if method == "post":
            assert {"$ref": "#/components/parameters/RequestTimeout"} in operation["parameters"]
    assert live["components"]["parameters"]["RequestTimeout"].get("required", False) is False


def test_a_key_is_needed_where_there_are_keys() -> None:
    assert openapi.document([], "1", needs_key=True)["security"] == [{"key": []}]
    assert {} in openapi.document([], "1", needs_key=False)["security"]
    assert openapi.document([], "1", needs_key=True)["paths"]["/ready"]["get"]["security"] == []


def test_it_is_made_anew_only_when_a_card_or_the_keys_have_changed(of_vllm: dict[str, Any]) -> None:
    models = [chatting("one", of_vllm), chatting("two", of_vllm)]
    document = openapi.Document("1")
    first = document.body(models, needs_key=False)
    assert document.body(iter(models), needs_key=False) is first
    assert document.body(models, needs_key=True) != first
    assert document.body(models, needs_key=False) == first
    card = models[0].card
    assert card is not None
    models[0].choose().card = replace(card, routes=frozenset({CHAT}))
    assert document.body(models, needs_key=False) != first
    models[0].choose().card = None
    assert b'"two"' in document.body(models, needs_key=False)


# A generated client.

_SCRIPT = """
import json, sys
import openapi_client
from openapi_client import models

with openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1])) as client:
    predict = openapi_client.PredictApi(client)
    platform = openapi_client.PlatformApi(client)
    request = models.SomeVllmChatCompletionRequest.from_dict(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    )
    try:
        openapi_client.InferenceApi(client).create_embedding(
            models.AllMinilmL6V2InputRequest(model="nobody", input=models.AllMinilmL6V2InputRequestInput("x"))
        )
    except openapi_client.ApiException as problem:
        error = [problem.status, problem.data.error.message]
    print(json.dumps({
        "echo": predict.predict_echo({"input": 7}),
        "ready": platform.get_ready().ready,
        "models": [model.name for model in platform.get_status().models],
        "error": error,
        "chat": json.loads(request.to_json())["messages"],
    }))
"""


def test_a_client_that_is_generated_from_it_works(
    small: Platform, live: dict[str, Any], of_vllm: dict[str, Any], tmp_path: Path
) -> None:
    own = merged(chatting("some-vllm", of_vllm))
    both = {**own, "paths": own["paths"] | live["paths"], "components": {**own["components"]}}
    both["components"]["schemas"] = own["components"]["schemas"] | live["components"]["schemas"]
    client = generated.generate(both, tmp_path)
    answers = generated.call(client, _SCRIPT, small.url)
    assert answers["echo"] == {"output": 7}
    assert answers["ready"] is True
    assert answers["models"] == list(small.status())
    assert answers["error"][0] == 404
    assert "'nobody'" in answers["error"][1]
    assert answers["chat"] == [{"role": "user", "content": "hi"}]
