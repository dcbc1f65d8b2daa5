"""How a body is read for each kind of route, and what content types it may have."""

import pytest

from servers.gateway.body.content import BodyKind, Content
from tests.servers.gateway.body.bodies import JSON, LIMITS, MIB, asking, read, refusal, with_raw


@pytest.mark.parametrize(
    "content_type", [JSON, "", "Application/JSON; charset=utf-8", "application/vnd.api+json", "application/json;"]
)
def test_json_is_read_where_it_is_declared_or_nothing_is(content_type: str) -> None:
    assert read(asking(), content_type, LIMITS, kind=BodyKind.GENERATION).model == "m"


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "application/jsonx", "x/" + "y" * 500]
)
def test_another_content_type_is_a_415_that_names_both(content_type: str) -> None:
    error = refusal(asking(), content_type)
    assert (error.status, error.code, error.param) == (415, "unsupported_media_type", None)
    assert f"expected a body of application/json, got content type '{content_type[:60]}" in error.message


def test_a_form_names_its_model_and_is_none_for_a_generation() -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    assert read(form, "multipart/form-data; boundary=b", LIMITS) == Content("whisper", 1)
    assert refusal(form, "multipart/form-data; boundary=b", kind=BodyKind.GENERATION).status == 415


def test_where_any_value_is_taken_only_what_is_declared_as_json_is_looked_at() -> None:
    for body in (b"[1, 2.5]", b"null", b'"x"', b'{"model": 5, "n": -1}'):
        assert read(body, JSON, LIMITS, kind=BodyKind.ANY) == Content(None, 1)
    for content_type in ("", "image/png", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"):
        assert read(b"\x00\xff", content_type, LIMITS, kind=BodyKind.ANY) == Content(None, 1)
    for body in (b"", b"[NaN]", b'{"a": 1, "a": 2}', b"[" * MIB, b"[" * (3 * MIB), b"\xff"):
        assert refusal(body, kind=BodyKind.ANY).code == "invalid_json"


def test_a_model_is_a_string() -> None:
    for value in ("5", "true", "[]", '{"a": "b"}'):
        error = refusal(with_raw(value, "model").replace(b'"model": "m", ', b""))
        assert (error.status, error.code, error.param) == (400, "invalid_type", "model")
        assert error.message.startswith("model: expected a string, got ")
    assert read(b'{"model": null}', JSON, LIMITS).model is None
