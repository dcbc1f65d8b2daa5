"""What an exception of an API's code says of the request is told to the caller; what it may not say is not."""

from collections.abc import Callable
from typing import Any

import pytest

from servers.engines.litserve.host.failure import INTERNAL_ERROR, failure_of


def _predict(request: Any) -> Any:
    return {"output": request["input"]}


def _get(request: Any) -> Any:
    return request.get("input")


def _lower(request: Any) -> Any:
    return request["input"].lower()


def _read(request: Any) -> Any:
    return request["input"].file.read()


def _misspell(request: Any) -> Any:
    return request["input"].lowercase()


def _pop(request: Any) -> Any:
    return request.pop("input")


def _get_inner(request: Any) -> Any:
    return request["options"]["top_k"]


def _lower_named(request: Any) -> Any:
    input = request["input"]  # noqa: A001 # as people call it
    return input.lower()


def _pass_on(request: Any) -> Any:
    model: Any = lambda text: text.lower()  # noqa: E731 # as LitServe's examples have it
    return model(request["input"])


def _pass_on_twice(request: Any) -> Any:
    def predict(input: Any) -> Any:  # noqa: A002 # as people call it
        return model(input)

    model: Any = lambda text: text.lower()  # noqa: E731
    return predict(request["input"])


def _pass_on_another(request: Any) -> Any:
    model: Any = lambda text, best: best.lower()  # noqa: E731
    return model(request["other"], 1)


def _lower_own(_request: Any) -> Any:
    best: Any = 1  # Python has one such number
    return best.lower()


def _own(_request: Any) -> Any:
    table: Any = ["a"]
    return table["b"]


def _failure(code: Callable[[Any], Any], request: Any) -> tuple[int, Any]:
    with pytest.raises((TypeError, AttributeError, KeyError)) as raised:
        code(request)
    failure = failure_of(raised.value, request)
    return failure.status, failure.detail


@pytest.mark.parametrize(
    ("code", "request_value", "detail"),
    [
        (_predict, ["a"], "the body: expected an object, got a list"),
        (_predict, "a text", "the body: expected an object, got text"),
        (_predict, 1, "the body: expected an object, got a number"),
        (_predict, None, "the body: expected an object, got null"),
        (_predict, {}, "the request has no field 'input'"),
        (_get, ["a"], "the body: expected an object or a form, got a list"),
        (_lower, {"input": ["a"]}, "the field 'input': expected text, got a list"),
        (_lower, {"input": 1}, "the field 'input': expected text, got a number"),
        (_lower_named, {"input": 1}, "the field 'input': expected text, got a number"),
        (_pass_on, {"input": 1}, "the field 'input': expected text, got a number"),
        (_pass_on_twice, {"input": 1}, "the field 'input': expected text, got a number"),
        (_pop, {}, "the request has no field 'input'"),
        (_get_inner, {"options": None}, "the field 'options': expected an object, got null"),
        (_get_inner, {"options": 1}, "the field 'options': expected an object, got a number"),
        (
            _read,
            {"input": "aGVsbG8gd29ybGQ="},
            "the field 'input': expected an upload in a form (multipart/form-data), got text",
        ),
    ],
)
def test_a_request_of_another_type_than_the_code_takes_is_told(
    code: Callable[[Any], Any], request_value: Any, detail: str
) -> None:
    assert _failure(code, request_value) == (422, detail)


@pytest.mark.parametrize(
    ("code", "request_value"),
    [
        (_misspell, {"input": "text"}),  # no type of JSON has it: a mistake of the API's
        (_lower, {"input": None}),  # null is everybody's
        (_own, ["a"]),  # another list than the request's
        (_pass_on_another, {"input": 1, "other": "text"}),
        (_lower_own, {"input": 1}),  # another number, though Python has one object for both
    ],
)
def test_what_may_be_the_apis_own_mistake_is_its_error(code: Callable[[Any], Any], request_value: Any) -> None:
    assert _failure(code, request_value) == (500, INTERNAL_ERROR)
