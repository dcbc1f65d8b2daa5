"""Forms from schemas, from examples, and from nothing."""

from pathlib import Path
from typing import Any

import pytest

from clients.playground.form import Field, Form, form_of
from clients.playground.platform import Problem

SCHEMAS = {
    "m.Colour": {"type": "string", "enum": ["red", "green"]},
    "m.Item": {
        "type": "object",
        "required": ["text", "count"],
        "properties": {
            "text": {"type": "string", "description": "what to say"},
            "count": {"type": "integer"},
            "share": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": 0.5},
            "loud": {"type": ["boolean", "null"]},
            "colour": {"allOf": [{"$ref": "#/components/schemas/m.Colour"}], "default": "red"},
            "stop": {"anyOf": [{"type": "string"}, {"type": "array"}]},
            "more": {"type": "object"},
        },
    },
}


def document(content: dict[str, Any]) -> dict[str, Any]:
    post = {"requestBody": {"content": content}}
    return {"paths": {"/predict/m": {"post": post}}, "components": {"schemas": SCHEMAS}}


def kinds(form: Form) -> dict[str, str]:
    return {field.name: field.kind for field in form.fields}


def test_fields_have_the_types_of_the_schema() -> None:
    form = form_of(document({"application/json": {"schema": {"$ref": "#/components/schemas/m.Item"}}}), "/predict/m")
    assert kinds(form) == {
        "text": "text",
        "count": "integer",
        "share": "number",
        "loud": "boolean",
        "colour": "choice",
        "stop": "json",
        "more": "json",
    }
    assert [field.name for field in form.fields if field.required] == ["text", "count"]
    sent = form.request(["hi", "9007199254740993", "", None, "green", "END", '{"a": 1}'])
    assert sent.body == {"text": "hi", "count": 2**53 + 1, "colour": "green", "stop": "END", "more": {"a": 1}}


def test_a_binary_property_makes_an_upload(tmp_path: Path) -> None:
    properties = {"image": {"type": "string", "format": "binary"}, "top_k": {"type": "integer", "default": 5}}
    upload = {"schema": {"type": "object", "required": ["image"], "properties": properties}}
    content = {"application/json": {"schema": {"type": "object"}}, "multipart/form-data": upload}
    form = form_of(document(content), "/predict/m")
    assert kinds(form) == {"image": "picture", "top_k": "integer"}
    request = form.request([str(tmp_path / "cat.png"), "3"])
    assert (request.files, request.fields) == ({"image": tmp_path / "cat.png"}, {"top_k": "3"})
    with pytest.raises(Problem, match="image: is needed"):
        form.request([None, "3"])


def test_without_properties_the_example_makes_the_fields() -> None:
    content = {"application/json": {"schema": {}, "example": {"input": "x", "count": 2, "on": True, "list": [1]}}}
    form = form_of(document(content), "/predict/m")
    assert kinds(form) == {"input": "json", "count": "number", "on": "boolean", "list": "json"}
    assert form.request(["plain text", "3", True, "[2]"]).body == {
        "input": "plain text",
        "count": 3,
        "on": True,
        "list": [2],
    }


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"paths": {}},
        {"paths": {"/predict/m": {"post": {}}}},
        {"paths": {"/predict/m": {"post": {"requestBody": {"$ref": "#/nowhere"}}}}},
        document({}),
        document({"application/json": {}}),
        document({"application/json": {"schema": {"$ref": "#/components/schemas/m.Gone"}}}),
        document({"application/json": {"schema": {"type": "object", "additionalProperties": {"type": "number"}}}}),
    ],
)
def test_where_nothing_is_known_the_body_is_one_box_of_json(known: dict[str, Any]) -> None:
    form = form_of(known, "/predict/m")
    assert kinds(form) == {"": "json"}
    assert form.request(['{"input": [1]}']).body == {"input": [1]}
    assert form.request(["[1]"]).body == [1]


def test_every_form_can_be_entered_as_json() -> None:
    content = {"application/json": {"schema": {}, "example": {"input": "x", "n": 2}}}
    whole = form_of(document(content), "/predict/m").as_json()
    assert kinds(whole) == {"": "json"}
    assert whole.fields[0].default == {"input": "x", "n": 2}


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("integer", "1.5", "n: expected a whole number, got '1.5'"),
        ("number", "much", "n: expected a number, got 'much'"),
        ("number", "nan", "n: expected a number, got 'nan'"),
        ("number", "1e999", "n: expected a number, got '1e999'"),
        ("json", "{", "n: expected JSON"),
        ("text", "", "n: is needed"),
    ],
)
def test_a_mistake_names_the_field_and_what_came(kind: Any, text: str, words: str) -> None:
    with pytest.raises(Problem, match=words):
        Field("n", kind, required=True).read(text)
