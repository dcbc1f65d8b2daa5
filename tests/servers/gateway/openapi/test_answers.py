"""The document of a running platform is true: its answers are as documented."""

import json
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from tests.conftest import Platform
from tests.servers.gateway.openapi.merging import (
    body_of,
    operations,
    problems,
)


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
                assert path in ("/predict/squares", "/v2/models/{model}/infer"), "only who names no example has none"
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
        ("/v1/embeddings", {"model": "all-minilm-l6-v2", "input": []}, 400),
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


def test_every_route_to_a_model_takes_a_deadline(live: dict[str, Any]) -> None:
    for _, method, operation in operations(live):
        if method == "post":
            assert {"$ref": "#/components/parameters/RequestTimeout"} in operation["parameters"]
    assert live["components"]["parameters"]["RequestTimeout"].get("required", False) is False
