"""What a request's JSON body must be; whatever else it is gets a 4xx that names the field and repeats nothing."""

import json
import random
import time
from typing import Any

import pytest
from servers.gateway.body.read import Document, read

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.body import sampling as generation

JSON = "application/json"
LIMITS = Limits()
SECRET = "my very own prompt"
MIB = 2**20


def refusal(body: bytes, content_type: str = JSON, limits: Limits = LIMITS, **how: bool) -> ApiError:
    """The error that a body gets, after what holds for every one."""
    with pytest.raises(ApiError) as caught:
        read(body, content_type, limits, **how)
    error = caught.value
    assert SECRET not in error.message
    assert len(error.message) < 300
    for piece in (body.decode(errors="replace")[start : start + 100] for start in range(0, min(len(body), 10**5), 50)):
        assert len(piece) < 100 or piece not in error.message
    told = json.loads(error.body())["error"]
    assert (told["type"], told["param"]) == ("invalid_request_error", error.param)
    return error


def asking(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": SECRET, **fields}).encode()


def with_raw(value: str, name: str = "max_tokens") -> bytes:
    return f'{{"model": "m", "prompt": "{SECRET}", "{name}": {value}}}'.encode()


def nested(depth: int) -> bytes:
    """An object that is `depth` deep, with a list and an object in turn."""
    inside = "1"
    for level in range(depth - 1):
        inside = f"[{inside}]" if level % 2 else f'{{"b": {inside}}}'
    return f'{{"a": {inside}}}'.encode()


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        pytest.param(b"", "Expecting value", None, id="an empty body"),
        pytest.param(b"hello", "Expecting value", None, id="a word"),
        pytest.param(b"{'a': 1}", "property name", None, id="single quotes"),
        pytest.param(b'{"a": 1,}', "property name", None, id="a comma too many"),
        pytest.param(asking()[:-1], "delimiter", None, id="a body that is cut off"),
        pytest.param(asking() + b" x", "Extra data", None, id="something behind the document"),
        pytest.param(asking() + asking(), "Extra data", None, id="two documents"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', "Expecting value", None, id="a byte order mark"),
        pytest.param('{"a": 1}'.encode("utf-16"), "UTF-8", None, id="UTF-16"),
        pytest.param(b'{"prompt": "caf\xe9"}', "byte 15 is not UTF-8", None, id="Latin-1"),
        pytest.param(b'{"prompt": "\xed\xa0\x80"}', "not UTF-8", None, id="half a surrogate pair in UTF-8"),
        pytest.param(b'{"prompt": "a\nb"}', "control character", None, id="a line break within a string"),
        pytest.param(with_raw("NaN"), "NaN is no JSON value", None, id="NaN"),
        pytest.param(with_raw("Infinity"), "Infinity is no JSON value", None, id="Infinity"),
        pytest.param(with_raw("-Infinity"), "-Infinity is no JSON value", None, id="-Infinity"),
        pytest.param(with_raw("1e999"), "too large for a double", None, id="1e999"),
        pytest.param(with_raw("-1e999", "x"), "too large for a double", None, id="-1e999"),
        pytest.param(with_raw("9" * 5000), "too many digits", None, id="an integer of 5000 digits"),
        pytest.param(with_raw("007"), "delimiter", None, id="leading zeros"),
        pytest.param(b'{"model": "a", "model": "b"}', "the key 'model' is there twice", "model", id="a key twice"),
        pytest.param(b'{"a": [{"b": 1, "c": 2, "b": 1}]}', "'b' is there twice", "b", id="a key twice deep inside"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', "'a' is there twice", "a", id="a key twice in two spellings"),
        pytest.param(b'{"\\ud800": 1, "\\ud800": 2}', "there twice", None, id="a key twice that cannot be encoded"),
        pytest.param(b'{"prompt": "\\ud800"}', "half of a surrogate pair", "prompt", id="a high surrogate alone"),
        pytest.param(b'{"prompt": "\\udc00 x"}', "half of a surrogate pair", "prompt", id="a low surrogate alone"),
        pytest.param(b'{"a": [{"\\ud83d": 1}]}', "half of a surrogate pair", "a", id="a surrogate alone in a key"),
        pytest.param(b'{"\\ud83d": 1}', "half of a surrogate pair", None, id="a surrogate alone as a field"),
        pytest.param(nested(65), "nested 65 deep, and at most 64", None, id="65 levels"),
        pytest.param(b'{"a":' * 200_000, "deep", None, id="objects without end"),
        pytest.param(b'{"a":' + b"[" * 200_000, "deep", None, id="lists without end"),
    ],
)
def test_what_is_no_proper_json_is_refused_saying_why(body: bytes, message: str, param: str | None) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, "invalid_json", param)
    assert message in error.message


@pytest.mark.parametrize("body", [b"[]", b" \n[1]", b"5", b'"x"', b"null", b"true", b"[" * MIB])
def test_a_document_is_an_object(body: bytes) -> None:
    error = refusal(body)
    assert (error.status, error.code, error.param) == (400, "invalid_type", None)
    assert "the body: expected an object, got" in error.message


def test_brackets_in_strings_do_not_count_as_nesting() -> None:
    for text in ("[" * 500, '"[' * 500, "\\" * 7 + "[" * 500, '\\"[{' * 500, '"' * 99 + "[" * 99):
        assert read(asking(prompt=text), JSON, LIMITS).model == "m"
        error = refusal(asking(prompt=text, a=json.loads(nested(64))))
        assert "nested 65 deep" in error.message


def test_the_depth_may_be_set_up_to_its_bound() -> None:
    deepest = Limits(max_json_depth=500)
    assert read(nested(500), JSON, deepest) == Document(None, 1)
    assert read(nested(499)[:-1] + b', "b": "\\ud83d\\ude00"}', JSON, deepest) == Document(None, 1)
    assert "nested 501" in refusal(nested(501), limits=deepest).message


@pytest.mark.parametrize(
    "content_type", [JSON, "", "Application/JSON; charset=utf-8", "application/vnd.api+json", "application/json;"]
)
def test_json_is_read_where_it_is_declared_or_nothing_is(content_type: str) -> None:
    assert read(asking(), content_type, LIMITS, generates=True).model == "m"


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "application/jsonx", "x/" + "y" * 500]
)
def test_another_content_type_is_a_415_that_names_both(content_type: str) -> None:
    error = refusal(asking(), content_type)
    assert (error.status, error.code, error.param) == (415, "unsupported_media_type", None)
    assert f"expected a body of application/json, got content type '{content_type[:60]}" in error.message


def test_a_form_names_its_model_and_is_none_for_a_generation() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    assert read(form, "multipart/form-data; boundary=b", LIMITS) == Document("whisper", 1)
    assert refusal(form, "multipart/form-data; boundary=b", generates=True).status == 415


def test_where_any_value_is_taken_only_what_is_declared_as_json_is_looked_at() -> None:
    for body in (b"[1, 2.5]", b"null", b'"x"', b'{"model": 5, "n": -1}'):
        assert read(body, JSON, LIMITS, any_value=True) == Document(None, 1)
    for content_type in ("", "image/png", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"):
        assert read(b"\x00\xff", content_type, LIMITS, any_value=True) == Document(None, 1)
    for body in (b"", b"[NaN]", b'{"a": 1, "a": 2}', b"[" * MIB, b"[" * (3 * MIB), b"\xff"):
        assert refusal(body, any_value=True).code == "invalid_json"


def test_a_model_is_a_string() -> None:
    for value in ("5", "true", "[]", '{"a": "b"}'):
        error = refusal(with_raw(value, "model").replace(b'"model": "m", ', b""))
        assert (error.status, error.code, error.param) == (400, "invalid_type", "model")
        assert error.message.startswith("model: expected a string, got ")
    assert read(b'{"model": null}', JSON, LIMITS).model is None


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
    error = refusal(with_raw(value, name), generates=True)
    assert (error.status, error.param) == (400, param or name)
    assert error.code in ("invalid_type", "invalid_value")
    assert error.message.startswith(f"{param or name}: expected ")
    assert message in error.message
    assert read(with_raw(value, name), JSON, LIMITS).model == "m", "other routes have fields of their own"


@pytest.mark.parametrize("prompt", ["5", "true"])
def test_a_prompt_is_text_or_token_ids(prompt: str) -> None:
    error = refusal(f'{{"prompt": {prompt}}}'.encode(), generates=True)
    assert (error.status, error.code, error.param) == (400, "invalid_type", "prompt")


def test_prompts_times_choices_are_bounded() -> None:
    error = refusal(asking(prompt=[SECRET] * 100, n=21), generates=True)
    assert (error.status, error.code, error.param) == (400, "invalid_value", "prompt")
    assert "at most 2048 prompts times choices (n), got 2100" in error.message
    assert refusal(asking(prompt=[[1, 2]] * 2049), generates=True).param == "prompt"
    read(asking(prompt=["a"] * 100, n=20), JSON, LIMITS, generates=True)
    read(asking(prompt=[1] * 5000, n=20), JSON, LIMITS, generates=True)  # one prompt of token ids


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
        assert read(body, JSON, LIMITS, generates=True).model == "m"
    generation.check(fields, LIMITS)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"model": "m"}, 1),
        ({"prompt": "x" * 400}, 100),
        ({"prompt": "é" * 400, "max_tokens": 10}, 210),
        ({"prompt": list(range(70)), "max_tokens": 10, "n": 3}, 100),
        ({"prompt": ["x" * 40] * 2, "max_tokens": 10, "n": 3}, 20 + 60),
        ({"messages": [{"role": "user", "content": "x" * 396}], "max_completion_tokens": 50, "max_tokens": 9}, 150),
        ({"input": "x" * 40, "max_output_tokens": 5}, 15),
        ({"messages": [{"content": [{"image_url": {"url": "data:" + "x" * 999}}, {"text": "x" * 40}]}]}, 10),
        ({"prompt": "x", "max_tokens": "many", "n": None}, 1),
    ],
)
def test_tokens_are_estimated_from_the_prompts_and_what_may_be_generated(fields: dict[str, Any], tokens: int) -> None:
    assert read(json.dumps(fields).encode(), JSON, LIMITS).tokens == tokens


@pytest.mark.parametrize("seed", range(20))
def test_whatever_python_writes_is_read(seed: int) -> None:
    chance = random.Random(seed)

    def value(depth: int) -> Any:
        match chance.randrange(9 if depth else 7):
            case 0:
                return chance.choice([None, True, False])
            case 1:
                return chance.randrange(-(10**18), 10**18)
            case 2:
                return chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300)
            case 7:
                return [value(depth - 1) for _ in range(chance.randrange(6))]
            case 8:
                return {text(): value(depth - 1) for _ in range(chance.randrange(6))}
            case _:
                return text()

    def text() -> str:
        alphabet = 'ab"\\/[]{},:\n\t\x00\x7fé語😀\u2028\ufffe'
        return "".join(chance.choice(alphabet) for _ in range(chance.randrange(30)))

    for _ in range(50):
        document = {text(): value(6) for _ in range(8)} | {"model": "m"}
        for ascii_only in (True, False):
            small = json.dumps(document, ensure_ascii=ascii_only, indent=chance.choice([None, 2])).encode()
            large = json.dumps(document | {"picture": "A" * MIB}, ensure_ascii=ascii_only).encode()
            assert read(small, JSON, LIMITS).model == read(large, JSON, LIMITS).model == "m"
            assert read(small, JSON, LIMITS, any_value=True) == Document(None, 1)
            cut = small[: chance.randrange(len(small) - 1)].rstrip()
            assert refusal(cut).status == 400


def padded(fields: str) -> bytes:
    """A body of more than what is parsed in Python, with these fields behind a picture."""
    return f'{{"model": "m", "picture": "{"A" * MIB}", {fields}}}'.encode()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param('"a": NaN', None, id="NaN"),
        pytest.param('"a": 1e999', None, id="1e999"),
        pytest.param(f'"a": {"9" * 5000}', None, id="an integer of 5000 digits"),
        pytest.param('"a": "\\ud800"', None, id="half a surrogate pair"),
        pytest.param(f'"a": {nested(64).decode()}', None, id="65 levels"),
        pytest.param('"a": 1, ', None, id="a comma too many"),
        pytest.param('"a": 1} x {', None, id="something behind the document"),
        pytest.param('"model": 5', "model", id="a model that is none"),
        pytest.param('"n": 1000', "n", id="too many choices"),
        pytest.param('"stop": [""]', "stop", id="an empty stop sequence"),
    ],
)
def test_a_large_body_gets_the_same_answers(fields: str, param: str | None) -> None:
    error = refusal(padded(fields), generates=True)
    assert (error.status, error.param) == (400, param)


def test_a_large_body_must_be_utf_8_too() -> None:
    assert "byte 3000012 is not UTF-8" in refusal(b'{"prompt": "' + b"A" * 3_000_000 + b'\xe9"}').message
    assert read(padded('"prompt": "é\\ud83d\\ude00 [[ \\" {{"'), JSON, LIMITS).tokens == 14 // 4


@pytest.mark.parametrize(
    "unit", ["[", "[],", "{},", '"a",', "1,", '{"a":', "[[1],", '"a":1,', "\\u0041", '\\"', "\\\\"]
)
@pytest.mark.parametrize("any_value", [True, False])
def test_a_hostile_body_is_refused_before_anything_is_built(unit: str, any_value: bool) -> None:
    size = 64 * MIB // len(unit)
    opening = "{" if unit == '"a":1,' else '{"a": "' if unit[0] == "\\" else '{"a": ['
    body = (opening + unit * size).encode()
    begin_s = time.perf_counter()
    with pytest.raises(ApiError) as caught:
        read(body, JSON, LIMITS, any_value=any_value)
    took_s = time.perf_counter() - begin_s
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert took_s < 1, "about 0.1 s on two slow cores; parsed, it would be many"
