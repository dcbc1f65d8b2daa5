"""Where a LitAPI answers otherwise on the worker host than on plain LitServe, and both are shown.

Each row of the table in docs/plugins.md is here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.servers.engines.litserve.host import twins
from tests.servers.engines.litserve.host.cases import FIELDS, case, chat, upload, vectors
from tests.servers.engines.litserve.host.twins import Case, Outcome, Raw, Twins

_INTERNAL = {"detail": "Internal server error"}
_TOGETHER: dict[str, Any] = {"max_batch_size": 2, "batch_timeout": 2.0}
_PART = upload(("content", b"AAH/"), file_name=None)


class Expected(NamedTuple):
    """Of one answer: its status, and its body as JSON, text, or words within it."""

    status: int
    body: Any = None
    is_whole: bool = True


class Difference(NamedTuple):
    """What comes from plain LitServe and from the host for a request, or for several that come together."""

    case: Case
    requests: list[Any]
    plain: list[Expected]
    host: list[Expected]


def _row(api: str, request: Any, plain: Expected, host: Expected, **settings: Any) -> Difference:
    name = api.rpartition(":")[2].lower() + "".join(settings)
    return Difference(case(name, api, **settings), [request], [plain], [host])


def _batch(api: str, requests: list[Any], plain: list[Expected], host: list[Expected], **settings: Any) -> Difference:
    name = f"{api.rpartition(':')[2]}-batch".lower() + "".join(settings)
    return Difference(case(name, api, **_TOGETHER, **settings), requests, plain, host)


_FAILED = Expected(500, _INTERNAL)
_NO_JSON = Expected(500, "Internal Server Error")
_BESIDE = {"output": "a", "together": 2}

LIGHT = {
    "a form's type with parameters": _row(
        "documented:FormAPI", Raw(f"{FIELDS};charset=UTF-8", b"content=AAH%2F"), _FAILED, Expected(200)
    ),
    "a form's type in capitals": _row(
        "documented:FormAPI", Raw("Multipart/Form-Data; boundary=x", _PART), _FAILED, Expected(200)
    ),
    "no boundary": _row(
        "documented:FormAPI", Raw("multipart/form-data", _PART), _FAILED, Expected(400, "Missing boundary")
    ),
    "no JSON": _row("documented:BareAPI", Raw("application/json", b"{"), _FAILED, Expected(400, "is not JSON")),
    "invalid UTF-8": _row(
        "documented:BareAPI", Raw("application/json", b'"\xff"'), _FAILED, Expected(400, "is not JSON")
    ),
    "a request that cannot be pickled": _row("careless:GenericAPI", {"item": 1}, _FAILED, Expected(200, 2)),
    "a type for type checkers": _row("careless:QuotedAPI", {"input": 1}, _FAILED, Expected(200, 1)),
    "a missing field": _row(
        "documented:SimpleAPI", {}, _FAILED, Expected(422, {"detail": "the request has no field 'input'"})
    ),
    "a missing field within one": _row(
        "careless:NestedAPI", {"image": {}}, _FAILED, Expected(422, {"detail": "the request has no field 'data'"})
    ),
    "a missing field of a form": _row(
        "documented:FormAPI",
        Raw(FIELDS, b"a=1"),
        _FAILED,
        Expected(422, {"detail": "the request has no field 'content'"}),
    ),
    "a body of another type": _row(
        "documented:SimpleAPI", ["a"], _FAILED, Expected(422, {"detail": "the body: expected an object, got a list"})
    ),
    "pairs of a zip": _row("careless:SendsAPI", {"kind": "zip"}, Expected(200, {"a": 1}), Expected(200, [["a", 1]])),
    "an exception's headers": _row("careless:BusyAPI", {}, Expected(503, "busy"), Expected(503, "busy")),
    "numpy": _row(
        "careless:SendsAPI",
        {"kind": "numpy"},
        _NO_JSON,
        Expected(200, {"scores": [0, 1, 2], "best": 2, "is_sure": True}),
    ),
    "NaN": _row(
        "careless:SendsAPI",
        {"kind": "nan"},
        _NO_JSON,
        Expected(500, {"detail": "encode_response: scores[0].score: nan is no JSON number (float32)"}),
    ),
    "a picture": _row(
        "careless:SendsAPI",
        {"kind": "picture"},
        _NO_JSON,
        Expected(500, {"detail": "encode_response: image: Image cannot be encoded as JSON"}),
    ),
    "bytes that are no text": _row(
        "careless:SendsAPI",
        {"kind": "bytes"},
        _NO_JSON,
        Expected(500, {"detail": "encode_response: raw: bytes cannot be encoded as JSON"}),
    ),
    "half a character": _row(
        "careless:SendsAPI",
        {"kind": "surrogate"},
        _NO_JSON,
        Expected(500, {"detail": "encode_response: the answer: str cannot be encoded as JSON"}),
    ),
    "a promise": _row(
        "careless:PromiseAPI",
        {"label": "a"},
        _NO_JSON,
        Expected(500, {"detail": "encode_response: score: Field required"}),
    ),
    "a stream as a response": _row("careless:SendsAPI", {"kind": "stream"}, _FAILED, Expected(200, "ab")),
    "an exception that cannot be unpickled": _row(
        "documented:FailingAPI", {"where": "limit"}, _FAILED, Expected(429, {"detail": "slower"})
    ),
    "a stream that fails before its first part": _row(
        "documented:StreamAPI",
        {"count": 3, "fail": "first"},
        Expected(200, ""),
        Expected(418, {"detail": "not before the first part"}),
        stream=True,
    ),
    "a stream that fails later": _row(
        "documented:StreamAPI",
        {"count": 3, "fail": 1},
        Expected(200, '{"output": 0}\n'),
        Expected(200, '{"output": 0}\n', is_whole=False),
        stream=True,
    ),
    "a part that is no text": _row(
        "careless:PartsAPI",
        {"parts": [[1]]},
        Expected(200, "", is_whole=False),
        Expected(500, {"detail": "encode_response yielded a list; expected text, bytes, a dict or a pydantic model"}),
        stream=True,
    ),
    "a part of numpy": _row(
        "careless:PartsAPI", {"named": "numpy"}, Expected(200, ""), Expected(200, '{"score": 0.5}\n'), stream=True
    ),
    "a part that is no number": _row(
        "careless:PartsAPI",
        {"named": "nan"},
        Expected(200, '{"score": NaN}\n'),
        Expected(500, {"detail": "encode_response: score: nan is no JSON number (float)"}),
        stream=True,
    ),
    "a chat that fails before its first word": _row(
        "careless:FailingChatAPI",
        chat("early", stream=True),
        Expected(200, "not now"),
        Expected(429, {"detail": "not now"}),
    ),
    "a chat that fails later": _row(
        "careless:FailingChatAPI",
        chat("late", stream=True),
        Expected(200, '"code": "internal_error"}}'),
        Expected(200, '"code": "internal_error"}}\n\n', is_whole=False),
    ),
    "dimensions that nobody looks at": _row(
        "careless:PlainVectorsAPI",
        vectors("text", dimensions=2),
        Expected(200, '"embedding":[0.5,0.25,0.125]'),
        Expected(400, {"detail": "dimensions: this model's vectors have 3 numbers, got 2"}),
    ),
}
BATCHED = {
    "a part left out": _batch(
        "documented:UnevenStreamsAPI",
        [{"name": "a", "count": 1, "leave_out": True}, {"name": "b", "count": 3}],
        [Expected(200, "a0b1b2"), Expected(200, "b0")],
        [Expected(200, "a0", is_whole=False), Expected(200, "b0", is_whole=False)],
        stream=True,
    ),
    "columns": _batch(
        "documented:ColumnsAPI",
        [{"kind": "columns"}] * 2,
        [Expected(200, "label"), Expected(200, "score")],
        [Expected(500, "returned a dict for a batch of 2")] * 2,
    ),
    "letters": _batch(
        "documented:ColumnsAPI",
        [{"kind": "text"}] * 2,
        [Expected(200, "a"), Expected(200, "b")],
        [Expected(500, "returned a str for a batch of 2")] * 2,
    ),
    "too few": _batch(
        "documented:ColumnsAPI",
        [{"kind": "short"}] * 2,
        [Expected(500)] * 2,
        [Expected(500, "returned 1 outputs for a batch of 2")] * 2,
    ),
    "undecodable": _batch(
        "documented:PoisonedAPI",
        [{"input": "a"}, {"input": "undecodable"}],
        [Expected(400, "undecodable")] * 2,
        [Expected(200, {"output": "a", "together": 1}), Expected(400, "undecodable")],
    ),
    "unencodable": _batch(
        "documented:PoisonedAPI",
        [{"input": "a"}, {"input": "unencodable"}],
        [Expected(200, _BESIDE), _NO_JSON],
        [Expected(200, _BESIDE), Expected(500, "encode_response: bad: nan")],
    ),
    "poison": _batch(
        "documented:PoisonedAPI",
        [{"input": "a"}, {"input": "poison"}],
        [_FAILED] * 2,
        [Expected(200, {"output": "a", "together": 1}), _FAILED],
    ),
}


def _cases(differences: dict[str, Difference]) -> list[Case]:
    return list({difference.case.name: difference.case for difference in differences.values()}.values())


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with twins.running(tmp_path_factory.mktemp("l"), _cases(LIGHT)) as both:
        yield both


@pytest.fixture(scope="module")
def batched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with twins.running(tmp_path_factory.mktemp("b"), _cases(BATCHED)) as both:
        yield both


@pytest.mark.parametrize("difference", LIGHT.values(), ids=LIGHT)
def test_a_difference_is_the_one_that_is_documented(difference: Difference, light: Twins) -> None:
    _show(difference, light)


@pytest.mark.long
@pytest.mark.parametrize("difference", BATCHED.values(), ids=BATCHED)
def test_a_difference_of_a_batch_is_the_one_that_is_documented(difference: Difference, batched: Twins) -> None:
    _show(difference, batched)


def test_an_exceptions_headers_are_sent(light: Twins) -> None:
    (hosted,), (plain,) = light.ask(LIGHT["an exception's headers"].case, {})
    assert ("retry-after", "3") in hosted.headers
    assert ("retry-after", "3") not in plain.headers


def _show(difference: Difference, both: Twins) -> None:
    hosted, plain = both.ask_together(difference.case, *difference.requests)
    for outcome, expected in (*zip(plain, difference.plain, strict=True), *zip(hosted, difference.host, strict=True)):
        _check(outcome, expected)


def _check(outcome: Outcome, expected: Expected) -> None:
    assert (outcome.status, outcome.is_whole) == (expected.status, expected.is_whole), outcome
    if isinstance(expected.body, str):
        assert expected.body in outcome.body.decode()
        assert bool(expected.body) == bool(outcome.body)
    elif expected.body is not None:
        assert outcome.json() == expected.body
