"""One document of several models: valid, and nothing of one model is mistaken for another's."""

import json
from dataclasses import replace
from typing import Any

import pytest

from servers.gateway.openapi.merge import Document, merge
from servers.gateway.routes import openai, registry
from tests.servers.gateway.openapi.merging import (
    CHAT,
    body_of,
    chatting,
    looked_up,
    merged,
    operations,
    references,
    taking,
    up,
)


@pytest.mark.long
def test_vllms_document_is_valid_with_its_references_led_to_their_new_names(of_vllm: dict[str, Any]) -> None:
    document = merged(chatting("a-model", of_vllm))
    assert openai.PATHS & of_vllm["paths"].keys() <= document["paths"].keys()
    assert not {"/sleep", "/load", "/v1/load_lora_adapter", "/invocations"} & document["paths"].keys()
    assert document["paths"][CHAT]["post"]["operationId"] == "create_chat_completion"
    mappings = [
        target
        for schema in document["components"]["schemas"].values()
        for target in references(schema)
        if target not in document["components"]["schemas"]
    ]
    assert mappings == []


@pytest.mark.long
def test_an_answer_that_can_be_streamed_is_documented_in_both_forms(of_vllm: dict[str, Any]) -> None:
    document = merged(chatting("a-model", of_vllm))
    for path in (CHAT, "/v1/completions", "/v1/responses", "/v1/messages"):
        answers = document["paths"][path]["post"]["responses"]["200"]["content"]
        assert list(answers) == ["application/json", "text/event-stream"]
        assert answers["text/event-stream"]["schema"]["type"] == "string"


@pytest.mark.long
def test_a_sound_is_documented_as_a_file_in_a_form_which_the_front_door_takes(of_vllm: dict[str, Any]) -> None:
    form = body_of(merged(chatting("a-model", of_vllm)), "/v1/audio/transcriptions", "multipart/form-data")
    assert form["properties"]["file"]["type"] == "string"
    assert form["properties"]["model"]["examples"] == ["a-model"]


@pytest.mark.long
def test_models_that_share_a_route_are_all_named_with_their_adapters(of_vllm: dict[str, Any]) -> None:
    document = merged(chatting("one", of_vllm, "one-tuned"), chatting("two", of_vllm))
    model = body_of(document, CHAT)["properties"]["model"]
    assert model["examples"] == ["one", "two", "one-tuned"]
    assert model["description"] == "One of one, two, one-tuned"
    assert "one, two, one-tuned" in document["paths"][CHAT]["post"]["description"]
    example = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert example["model"] == "one"


@pytest.mark.long
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


@pytest.mark.long
def test_a_model_that_is_not_up_is_not_in_it(of_vllm: dict[str, Any]) -> None:
    model = chatting("one", of_vllm)
    model.choose().card = None
    assert CHAT not in merged(model)["paths"]


def test_a_key_is_needed_where_there_are_keys() -> None:
    assert merge([], "1", registry.routes(), needs_key=True)["security"] == [{"key": []}]
    assert {} in merge([], "1", registry.routes(), needs_key=False)["security"]
    assert merge([], "1", registry.routes(), needs_key=True)["paths"]["/ready"]["get"]["security"] == []


@pytest.mark.long
def test_it_is_made_anew_only_when_a_card_or_the_keys_have_changed(of_vllm: dict[str, Any]) -> None:
    models = [chatting("one", of_vllm), chatting("two", of_vllm)]
    document = Document("1", registry.routes())
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
