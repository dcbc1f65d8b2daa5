"""Fields that an engine does not read: those that would change the answer are refused, the others are named."""

from typing import Any

import pytest

from servers.engines.base import Rules
from servers.engines.fields import HEADER
from servers.engines.litserve.rules import SpecRules
from servers.engines.llamacpp.rules import LlamaCppRules, document
from servers.engines.vllm.rules import VllmRules
from servers.errors import ApiError

CHAT, RESPONSES, TOKENIZE = "/v1/chat/completions", "/v1/responses", "/tokenize"
COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"


def _post(schema: dict[str, Any]) -> dict[str, Any]:
    return {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}


def _schema(*names: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {} for name in names}}


OPENAPI = {
    "paths": {
        CHAT: _post({"$ref": "#/components/schemas/Chat"}),
        RESPONSES: _post(_schema("model", "input", "store")),
        TOKENIZE: _post({"anyOf": [{"$ref": "#/components/schemas/Chat"}, _schema("prompt")]}),
        "/v1/more": _post({**_schema("model"), "additionalProperties": True}),
        "/free": _post({"type": "object"}),
        "/health": {"get": {}},
    },
    "components": {"schemas": {"Chat": _schema("model", "messages", "temperature", "structured_outputs")}},
}
VLLM = VllmRules("m", OPENAPI, stores_responses=False)
SPEC = SpecRules(OPENAPI)
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def _review(path: str, document: dict[str, Any], rules: Rules = VLLM) -> Any:
    return dict(rules.review(path, document, refuse_unknown=False))


def _refuse(path: str, document: dict[str, Any], rules: Rules = VLLM, *, refuse_unknown: bool = False) -> ApiError:
    with pytest.raises(ApiError) as caught:
        rules.review(path, document, refuse_unknown=refuse_unknown)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("path", "field", "successor"),
    [
        (CHAT, "guided_json", "structured_outputs"),
        (CHAT, "guided_choice", "structured_outputs"),
        (CHAT, "guided_regex", "structured_outputs"),
        (CHAT, "guided_grammar", "structured_outputs"),
        (CHAT, "functions", "tools"),
        (RESPONSES, "conversation", "input"),
    ],
)
def test_a_field_whose_loss_changes_the_answer_is_a_400_that_names_its_successor(
    path: str, field: str, successor: str
) -> None:
    error = _refuse(path, {"model": "m", field: "x"})
    assert (error.code, error.param) == ("unsupported_field", field)
    assert successor in error.message


def test_a_response_is_to_be_stored_only_where_responses_are_stored() -> None:
    assert _refuse(RESPONSES, {"store": True}).param == "store"
    assert _review(RESPONSES, {"store": False}) == {}
    assert _review(RESPONSES, {"store": True}, VllmRules("m", OPENAPI, stores_responses=True)) == {}


def test_any_other_unknown_field_is_named_with_the_nearest_known_one() -> None:
    assert _review(CHAT, {"model": "m", "tempereture": 1, "zeal": 2}) == {
        HEADER: "tempereture (did you mean temperature?), zeal"
    }
    assert _review(CHAT, {"a,b\r\nc: \N{SNOWMAN}": 1, "x" * 100: 1}) == {HEADER: r"a;b\r\nc: \u2603, " + "x" * 64}


def test_what_is_known_or_null_or_of_a_route_without_a_list_of_fields_is_not_named() -> None:
    assert _review(CHAT, {"model": "m", "temperature": 0, "guided_json": None}) == {}
    assert _review(TOKENIZE, {"prompt": "a", "messages": []}) == {}
    assert _review("/free", {"x": 1}) == {}
    assert _review("/elsewhere", {"x": 1}) == {}


def test_unknown_fields_are_refused_where_the_settings_say_so() -> None:
    error = _refuse(CHAT, {"tempereture": 1}, refuse_unknown=True)
    assert (error.code, error.param) == ("unknown_field", "tempereture")
    assert "did you mean temperature?" in error.message
    assert "limits.unknown_fields" in error.message


def test_litserves_specs_name_what_they_drop_and_never_answer_500_to_what_openai_refuses() -> None:
    asks = {"model": "m", "logprobs": True, "stream_options": {"include_usage": True}}
    assert _review(CHAT, asks, SPEC) == {HEADER: "logprobs"}
    assert _review(CHAT, {"stream_options": {}}, SPEC) == {}, "the usage comes whatever the request asks"
    assert _refuse(CHAT, {"functions": []}, SPEC).message.endswith("send tools")
    assert _refuse(CHAT, {"n": None}, SPEC).param == "n"
    assert _refuse("/v1/embeddings", {"input": []}, SPEC).param == "input"


@pytest.mark.parametrize(
    ("choice", "words"),
    [("required", '"any" is what this spec calls it'), ({"type": "function", "function": {"name": "f"}}, "in `tools`")],
)
def test_a_choice_of_tools_that_litserves_spec_does_not_have_is_told_with_what_it_has(choice: Any, words: str) -> None:
    error = _refuse(CHAT, {"tool_choice": choice}, SPEC)
    assert error.param == "tool_choice"
    assert words in error.message
    assert _review(CHAT, {"messages": []}, SPEC) == {}


def test_a_schema_that_takes_more_fields_reads_them_except_vllms() -> None:
    assert _review("/v1/more", {"x": 1}, SPEC) == {}
    assert _review("/v1/more", {"x": 1}) == {HEADER: "x"}


def _llamacpp(*, supports_tools: bool = True) -> LlamaCppRules:
    parameters = {"params": {"min_p": 0.05}}
    properties = {
        "default_generation_settings": parameters,
        "chat_template_caps": {"supports_tools": supports_tools},
    }
    return LlamaCppRules(document({CHAT, COMPLETIONS, EMBEDDINGS}, properties))


@pytest.mark.parametrize(
    ("path", "body", "successor"),
    [
        (CHAT, {"tools": TOOLS}, "to a model whose chat template has a place for tools"),
        (CHAT, {"tools": TOOLS, "tool_choice": TOOLS[0]}, 'offer only that tool, with "required"'),
        (CHAT, {"functions": TOOLS}, "send tools"),
        (COMPLETIONS, {"response_format": {"type": "json_object"}}, "send json_schema"),
        (COMPLETIONS, {"echo": True}, "put the prompt before the answer"),
        (EMBEDDINGS, {"dimensions": 2}, "cut the vectors"),
    ],
)
def test_what_llama_cpp_would_drop_of_a_request_is_refused(path: str, body: dict[str, Any], successor: str) -> None:
    error = _refuse(path, body, _llamacpp(supports_tools=False))
    assert error.param in body
    assert error.message.endswith(successor)


def test_llama_cpp_reads_the_parameters_that_it_names_itself() -> None:
    asks = {"model": "m", "messages": [], "min_p": 0.1, "user": "me", "tools": [], "zeal": 1}
    assert _review(CHAT, asks, _llamacpp(supports_tools=False)) == {HEADER: "zeal"}
    assert _review(CHAT, {"tools": TOOLS, "tool_choice": "none"}, _llamacpp(supports_tools=False)) == {}
    assert _review(CHAT, {"tools": TOOLS, "tool_choice": "required"}, _llamacpp()) == {}
    assert _review(COMPLETIONS, {"prompt": "a", "echo": False, "grammar": "x"}, _llamacpp()) == {}
