"""What the host does right where LitServe is quietly wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from servers.engines.litserve.api import OUT_OF_MEMORY
from servers.engines.litserve.host.failure import failure_of
from tests.servers.engines.litserve.child import STRANGERS
from tests.servers.engines.litserve.host.hosted import Answer, Hosted, hosting


def _with_host(folder: Path, api: str, use: Callable[[Hosted], Awaitable[Any]], **spec: Any) -> Any:
    async def run() -> Any:
        async with hosting(folder, api=f"{STRANGERS}/{api}", **spec) as host:
            return await use(host), host.log

    return asyncio.run(run())


def _together(*bodies: dict[str, Any]) -> Callable[[Hosted], Awaitable[list[Answer]]]:
    async def use(host: Hosted) -> list[Answer]:
        return await asyncio.gather(*(host.post(body) for body in bodies))

    return use


def _details(answers: list[Answer]) -> list[tuple[int, Any]]:
    return [(answer.status, answer.json().get("detail")) for answer in answers]


def test_streams_of_a_batch_may_end_one_after_the_other(tmp_path: Path) -> None:
    use = _together({"name": "a", "count": 1}, {"name": "b", "count": 3})
    answers, _ = _with_host(tmp_path, "documented.py:UnevenStreamsAPI", use, stream=True, max_batch_size=2)
    assert [answer.body for answer in answers] == [b"a0", b"b0b1b2"]
    assert [answer.broken for answer in answers] == [None, None]


def test_a_step_with_too_few_parts_ends_the_batch_and_names_both_numbers(tmp_path: Path) -> None:
    use = _together({"name": "a", "count": 1, "leave_out": True}, {"name": "b", "count": 3})
    answers, log = _with_host(tmp_path, "documented.py:UnevenStreamsAPI", use, stream=True, max_batch_size=2)
    assert [answer.body for answer in answers] == [b"a0", b"b0"]
    assert all("BatchError" in (answer.broken or "") for answer in answers)
    assert "returned 1 outputs for a batch of 2" in log


def test_a_stream_that_fails_has_its_status_before_the_first_part_and_breaks_off_after_it(tmp_path: Path) -> None:
    async def use(host: Hosted) -> list[Answer]:
        return [await host.predict(count=3, fail=fail) for fail in ("first", 0, 2)]

    (refused, failed, broken), _ = _with_host(tmp_path, "documented.py:StreamAPI", use, stream=True)
    assert (refused.status, refused.json()) == (418, {"detail": "not before the first part"})
    assert (failed.status, failed.json()) == (500, {"detail": "Internal server error"})
    assert broken.status == 200
    assert broken.body == b'{"output": 0}\n{"output": 1}\n'
    assert broken.broken == "BrokenAnswerError: ValueError"


def test_a_chat_that_fails_before_its_first_part_has_its_status_when_it_streams(tmp_path: Path) -> None:
    async def use(host: Hosted) -> Answer:
        return await host.predict(model="m", messages=[{"role": "user", "content": "fail"}], stream=True)

    answer, _ = _with_host(tmp_path, "specs.py:ChatAPI", use)
    assert (answer.status, answer.json()) == (409, {"detail": "no chat today"})


@pytest.mark.parametrize(("kind", "words"), [("columns", "a dict"), ("text", "a str"), ("short", "1 outputs")])
def test_a_batch_that_is_not_one_output_a_request_is_an_error_that_says_so(
    tmp_path: Path, kind: str, words: str
) -> None:
    answers, _ = _with_host(
        tmp_path, "documented.py:ColumnsAPI", _together({"kind": kind}, {"kind": kind}), max_batch_size=2
    )
    for status, detail in _details(answers):
        assert status == 500
        assert words in detail
        assert "a batch of 2" in detail


def test_a_bad_request_of_a_batch_is_its_own_and_the_others_get_their_answers(tmp_path: Path) -> None:
    use = _together(*({"input": item} for item in ("a", "undecodable", "unencodable", "b")))
    answers, log = _with_host(tmp_path, "documented.py:PoisonedAPI", use, max_batch_size=4)
    assert [answer.status for answer in answers] == [200, 400, 500, 200]
    assert answers[0].json() == {"output": "a", "together": 3}
    assert answers[2].json()["detail"] == "encode_response: bad: nan is no JSON number (float)"
    assert "encode_response: bad: nan" in log


@pytest.mark.parametrize(("isolates", "statuses", "retried"), [(True, [200, 500], 2), (False, [500, 500], 0)])
def test_an_input_that_fails_predict_does_not_fail_its_neighbours(
    tmp_path: Path, isolates: bool, statuses: list[int], retried: int
) -> None:
    async def use(host: Hosted) -> tuple[list[int], int]:
        answers = await _together({"input": "a"}, {"input": "poison"})(host)
        return [answer.status for answer in answers], host.dispatcher.totals.retried

    counts, log = _with_host(tmp_path, "documented.py:PoisonedAPI", use, max_batch_size=2, isolate_failures=isolates)
    assert counts == (statuses, retried)
    assert ("each is tried alone" in log) == isolates


def test_values_that_json_does_not_have_are_encoded_or_named(tmp_path: Path) -> None:
    async def use(host: Hosted) -> dict[str, tuple[int, Any]]:
        values = ("float32", "int64", "array", "nan", "object", "counts", "pairs", "large")
        answers = {value: await host.predict(value=value) for value in values}
        return {value: (answer.status, answer.json()) for value, answer in answers.items()}

    answers, _ = _with_host(tmp_path, "answers.py:ValuesAPI", use)
    assert answers["float32"] == (200, 0.5)
    assert answers["int64"] == (200, [3])
    assert answers["array"] == (200, [0, 1, 2])
    assert answers["nan"] == (500, {"detail": "encode_response: scores[1]: nan is no JSON number (float)"})
    assert answers["object"] == (500, {"detail": "encode_response: a[0]: object cannot be encoded as JSON"})
    assert answers["counts"] == (200, {"of": {"3": 2, "5": 1}})
    assert answers["pairs"] == (500, {"detail": "encode_response: a key of type tuple cannot be encoded as JSON"})
    assert answers["large"] == (200, "x" * 2_000_000)


@pytest.mark.long
def test_tensors_are_numbers_and_lists(tmp_path: Path) -> None:
    async def use(host: Hosted) -> dict[str, Any]:
        answer: dict[str, Any] = (await host.predict(value="tensors")).json()
        return answer

    answer, _ = _with_host(tmp_path, "answers.py:ValuesAPI", use)
    assert answer == {"score": 0.5, "vector": [1, 2], "graph": [1.0]}


def test_an_exception_of_any_kind_is_that_requests_only(tmp_path: Path) -> None:
    async def use(host: Hosted) -> list[tuple[int, Any]]:
        bodies = [{}, {"text": "a"}, *({"where": where} for where in ("limit", "local", "key", "predict"))]
        return _details([await host.post(body) for body in bodies])

    answers, log = _with_host(tmp_path, "documented.py:FailingAPI", use)
    failed = (500, "Internal server error")
    missing = (422, "the request has no field 'text'")
    assert answers == [missing, (200, None), (429, "slower"), failed, failed, failed]
    assert "a secret" in log


def test_a_full_device_is_a_503() -> None:
    failure = failure_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9313.23 GiB."))
    assert (failure.status, failure.detail, failure.is_expected) == (503, OUT_OF_MEMORY, False)


def test_forms_are_known_by_their_type_without_case_and_parameters(tmp_path: Path) -> None:
    async def use(host: Hosted) -> list[Answer]:
        form = "application/x-www-form-urlencoded;charset=UTF-8"
        part = b'--x\r\nContent-Disposition: form-data; name="content"\r\n\r\nAAH/\r\n--x--\r\n'
        return [
            await host.post(content_type=form, data=b"content=AAH%2F"),
            await host.post(content_type="Multipart/Form-Data; boundary=x", data=part),
            await host.post(content_type="multipart/form-data", data=part),
            await host.post(data=b"{"),
        ]

    answers, _ = _with_host(tmp_path, "documented.py:FormAPI", use)
    assert [answer.status for answer in answers] == [200, 200, 400, 400]
    assert "boundary" in answers[2].json()["detail"]
    assert "not JSON" in answers[3].json()["detail"]
