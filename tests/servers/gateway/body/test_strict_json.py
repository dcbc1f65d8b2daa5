"""What a JSON body must be: whatever two parsers may read differently gets a 400 that repeats nothing."""

import json
import random
import sys
import time
from typing import Any

import pytest

from configs.settings import Limits
from servers.errors import ApiError
from servers.gateway.body.content import BodyKind, Content
from tests.servers.gateway.body.bodies import JSON, LIMITS, MIB, asking, nested, read, refusal, with_raw

_TRAILING_COMMA = "trailing comma" if sys.version_info >= (3, 13) else "a comma stands before the closing bracket"


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        pytest.param(b"", "the body is empty", None, id="an empty body"),
        pytest.param(b"hello", "Expecting value", None, id="a word"),
        pytest.param(b"{'a': 1}", "double quotes", None, id="single quotes"),
        pytest.param(b'{"a": 1,}', _TRAILING_COMMA, None, id="a comma too many"),
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
    assert read(nested(500), JSON, deepest) == Content(None, 1)
    assert read(nested(499)[:-1] + b', "b": "\\ud83d\\ude00"}', JSON, deepest) == Content(None, 1)
    assert "nested 501" in refusal(nested(501), limits=deepest).message


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 20))])
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
            assert read(small, JSON, LIMITS, kind=BodyKind.ANY) == Content(None, 1)
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
    error = refusal(padded(fields), kind=BodyKind.GENERATION)
    assert (error.status, error.param) == (400, param)


def test_a_large_body_must_be_utf_8_too() -> None:
    assert "byte 3000012 is not UTF-8" in refusal(b'{"prompt": "' + b"A" * 3_000_000 + b'\xe9"}').message
    assert read(padded('"prompt": "é\\ud83d\\ude00 [[ \\" {{"'), JSON, LIMITS).tokens == 14 // 4


@pytest.mark.parametrize(
    "unit", ["[", "[],", "{},", '"a",', "1,", '{"a":', "[[1],", '"a":1,', "\\u0041", '\\"', "\\\\"]
)
@pytest.mark.parametrize("kind", [BodyKind.ANY, BodyKind.OBJECT])
def test_a_hostile_body_is_refused_before_anything_is_built(unit: str, kind: BodyKind) -> None:
    size = 32 * MIB // len(unit)
    opening = "{" if unit == '"a":1,' else '{"a": "' if unit[0] == "\\" else '{"a": ['
    body = (opening + unit * size).encode()
    begin_s = time.thread_time()
    with pytest.raises(ApiError) as caught:
        read(body, JSON, LIMITS, kind)
    cpu_s = time.thread_time() - begin_s
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert cpu_s < 1, "about 0.05 s on a slow core; parsed, it would be many"
