"""Sampling parameters: a wrong one gets a 400 that names the field, and what vLLM serves passes."""

import json
from typing import Any

import pytest

from servers.gateway.body import sampling
from servers.gateway.body.content import BodyKind
from tests.servers.gateway.body.bodies import JSON, LIMITS, SECRET, asking, read, refusal, with_raw


@pytest.mark.parametrize(
    ("name", "value", "message", "param"),
    [
        ("max_tokens", "-1", "a whole number of 0 to 2147483647, got -1", None),
        ("max_tokens", "1" + "0" * 30, "got 1000000000000000000000000000000", None),
        ("max_tokens", "1" + "0" * 3000, "got a number of 3001 digits", None),
        ("max_tokens", "1.5", "got 1.5", None),
        ("max_tokens", '"5"', "got a string of 1 characters", None),
        ("max_tokens", "true", "got true", None),
        ("max_tokens", "[5]", "got a list of 1", None),
        ("max_completion_tokens", "1e300", "got 1e+300", None),
        ("max_output_tokens", "-5", "got -5", None),
        ("min_tokens", "-1", "got -1", None),
        ("top_k", "1" + "0" * 30, "a whole number of -1 to", None),
        ("stream_interval", "0", "a whole number of 1 to", None),
        ("thinking_token_budget", "1" + "0" * 30, "a whole number of -1 to", None),
        ("n", "0", "a whole number of 1 to 128, got 0", None),
        ("n", "129", "a whole number of 1 to 128, got 129", None),
        ("best_of", "1000", "got 1000", None),
        ("logprobs", "-2", "a whole number of -1 to", None),
        ("logprobs", '"x"', "got a string", None),
        ("top_logprobs", "1" + "0" * 30, "a whole number of -1 to", None),
        ("prompt_logprobs", "true", "got true", None),
        ("temperature", '"hot"', "a number, got a string of 3 characters", None),
        ("temperature", "1" + "0" * 400, "a double can hold, got a number of 401 digits", None),
        ("top_p", "false", "a number, got false", None),
        ("presence_penalty", "{}", "got an empty object", None),
        ("frequency_penalty", "[]", "got an empty list", None),
        ("repetition_penalty", '""', "got an empty string", None),
        ("stream", "1", "true or false, got 1", None),
        ("stream", '"true"', "true or false, got a string", None),
        ("stop", '""', "got an empty string", None),
        ("stop", '["a", ""]', "none of them empty, got an empty string", None),
        ("stop", '["a", null]', "got null", None),
        ("stop", "5", "a string, or a list of at most 64 strings, none of them empty, got 5", None),
        ("stop", json.dumps(["x"] * 65), "(limits.max_stop_sequences), got a list of 65", None),
        ("stop_sequences", "[5]", "got 5", None),
        ("stop_token_ids", "5", "a list of at most 1024 token ids, got 5", None),
        ("stop_token_ids", json.dumps([1] * 1025), "got a list of 1025", None),
        ("stop_token_ids", "[1, -1]", "got -1", "stop_token_ids[1]"),
        ("stop_token_ids", '["1"]', "got a string", "stop_token_ids[0]"),
        ("logit_bias", "[]", "an object of at most 1024 token ids", None),
        ("logit_bias", json.dumps(dict.fromkeys(map(str, range(1025)), 1)), "got an object of 1025 keys", None),
        ("logit_bias", json.dumps({SECRET: 1}), "got another key", None),
        ("logit_bias", '{"-1": 1}', "got another key", None),
        ("logit_bias", '{"1_0": 1}', "got another key", None),
        ("logit_bias", '{"٣": 1}', "got another key", None),
        ("logit_bias", '{"1": 100.5}', "-100 to 100, got 100.5", None),
        ("logit_bias", '{"1": "5"}', "got a string", None),
        ("logit_bias", '{"1": null}', "got null", None),
        ("messages", "[]", "at least one message", None),
        (
            "input",
            '[{"type": "message", "role": "assistant", "content": []}]',
            "a text as the first part",
            "input[0].content",
        ),
        ("messages", '"x"', "a list of messages", None),
        ("structured_outputs", '"x"', "an object, got a string", None),
        (
            "repetition_detection",
            '{"max_pattern_size": 99999999999}',
            "99999999999",
            "repetition_detection.max_pattern_size",
        ),
    ],
)
def test_a_field_of_a_generation_is_refused_by_its_name(name: str, value: str, message: str, param: str | None) -> None:
    error = refusal(with_raw(value, name), kind=BodyKind.GENERATION)
    assert (error.status, error.param) == (400, param or name)
    assert error.code in ("invalid_type", "invalid_value")
    assert error.message.startswith(f"{param or name}: expected ")
    assert message in error.message
    assert read(with_raw(value, name), JSON, LIMITS).model == "m", "other routes have fields of their own"


@pytest.mark.parametrize("prompt", ["5", "true"])
def test_a_prompt_is_text_or_token_ids(prompt: str) -> None:
    error = refusal(f'{{"prompt": {prompt}}}'.encode(), kind=BodyKind.GENERATION)
    assert (error.status, error.code, error.param) == (400, "invalid_type", "prompt")


def test_prompts_times_choices_are_bounded() -> None:
    error = refusal(asking(prompt=[SECRET] * 100, n=21), kind=BodyKind.GENERATION)
    assert (error.status, error.code, error.param) == (400, "invalid_value", "prompt")
    assert "at most 2048 prompts times choices (n), got 2100" in error.message
    assert refusal(asking(prompt=[[1, 2]] * 2049), kind=BodyKind.GENERATION).param == "prompt"
    assert refusal(json.dumps({"messages": [[]] * 2049}).encode(), kind=BodyKind.GENERATION).param == "messages"
    read(asking(prompt=["a"] * 100, n=20), JSON, LIMITS, kind=BodyKind.GENERATION)
    read(asking(prompt=[1] * 5000, n=20), JSON, LIMITS, kind=BodyKind.GENERATION)  # one prompt of token ids


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 0, "echo": True, "logprobs": 5, "prompt_logprobs": 1},
        {"max_tokens": None, "n": None, "stop": None, "logit_bias": None, "stream": None},
        {"max_completion_tokens": 16.0, "n": 128, "best_of": 128, "top_k": -1, "top_logprobs": -1, "min_tokens": 0},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "logprobs": True},
        {"stop": "\n", "stop_token_ids": [0, 2], "logit_bias": {"50256": -100, "0": 100.0}},
        {"stop": [], "stop_token_ids": [], "logit_bias": {}, "structured_outputs": {"regex": "a"}},
        {"temperature": 0, "top_p": 1, "presence_penalty": -2.0, "frequency_penalty": 2, "repetition_penalty": 1.1},
        {"prompt": {"id": "stored"}, "input": "x", "stream": True, "unknown": [{"n": -1}]},
        {"prompt": "😀 \\ud800 \x00"},
    ],
)
def test_what_vllm_serves_is_let_through(fields: dict[str, Any]) -> None:
    for body in (asking(**fields), json.dumps(json.loads(asking(**fields)), ensure_ascii=False).encode()):
        assert read(body, JSON, LIMITS, kind=BodyKind.GENERATION).model == "m"
    sampling.check(fields, LIMITS)
