"""An exception, a header or an answer of any make is one request's own: others are answered, and no worker ends."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.settings import LitServeModel
from servers.apis import reference
from servers.engines.litserve.host.answer import HostRequest
from servers.engines.litserve.host.encode import EncodeError, to_json
from tests.servers.engines.litserve.child import STRANGERS
from tests.servers.engines.litserve.host.hosted import Answer, Hosted, run_hosted

RAISES = f"{STRANGERS}/raises.py"


@pytest.mark.parametrize("size", [1, 4])
def test_a_validator_may_raise_anything(tmp_path: Path, size: int) -> None:
    async def use(host: Hosted) -> list[Answer]:
        return await asyncio.gather(*(host.predict(fruit=fruit) for fruit in ("apple", "kiwi", "gone", "apple")))

    answers = run_hosted(tmp_path, use, api=f"{RAISES}:OrderAPI", max_batch_size=size)
    assert [answer.status for answer in answers] == [200, 500, 410, 200]
    assert answers[2].json() == {"detail": "sold out"}


@pytest.mark.parametrize("api", ["RaisesAPI", "AsyncRaisesAPI"])
def test_headers_and_details_of_any_make_end_no_connection(tmp_path: Path, api: str) -> None:
    kinds = ("number", "outside", "pairs", "unspeakable", "informational", "response", "")

    async def use(host: Hosted) -> tuple[list[Answer], int, str]:
        answers = [await host.predict(**{"raise": kind}) for kind in kinds]
        return answers, host.dispatcher.restarts, host.log

    answers, restarts, log = run_hosted(tmp_path, use, api=f"{RAISES}:{api}")
    assert [answer.status for answer in answers] == [429, 400, 429, 500, 500, 200, 200]
    headers = [dict(answer.response.headers) for answer in answers]
    assert headers[0] == {"retry-after": "30", "content-type": "application/json"}
    assert headers[1] == {"x-ok": "ü", "content-type": "application/json"}
    assert headers[2]["retry-after"] == "3"
    assert "x-line" not in headers[5]
    assert restarts == 0
    assert "a header of an answer is left out, as HTTP does not allow it: 'X-Line': 'a\\nb'" in log


def test_outputs_that_the_api_unbatches_by_itself_may_be_of_any_type(tmp_path: Path) -> None:
    async def use(host: Hosted) -> list[Answer]:
        return await asyncio.gather(*(host.predict(text=text) for text in ("a", "bb", "ccc")))

    answers = run_hosted(tmp_path, use, api=f"{RAISES}:ColumnsAPI", max_batch_size=4)
    assert [answer.json()["size"] for answer in answers] == [1, 2, 3]


def test_clients_that_do_not_read_hold_up_nobody_else(tmp_path: Path) -> None:
    async def use(host: Hosted) -> list[Any]:
        ask = HostRequest("r", "application/json", b'{"size": 20000000}')
        unread = [await host.dispatcher.send(ask) for _ in range(3)]
        small = await host.predict(size=1)
        lengths = []
        for response in unread:
            assert response.parts is not None
            lengths.append(sum([len(part) async for part in response.parts]))
            assert response.steps is not None
        return [small.json(), lengths, host.dispatcher.is_at_rest]

    assert run_hosted(tmp_path, use, api=f"{RAISES}:LargeAPI") == ["x", [20_000_002] * 3, True]


def test_a_worker_that_ends_while_it_sends_breaks_the_answer_off(tmp_path: Path) -> None:
    async def use(host: Hosted) -> str:
        response = await host.dispatcher.send(HostRequest("r", "application/json", b'{"size": 20000000}'))
        assert response.parts is not None
        (worker,) = host.dispatcher.pids()
        os.kill(worker, signal.SIGKILL)
        try:
            async for _ in response.parts:
                pass
        except Exception as error:
            return type(error).__name__
        return "whole"

    assert run_hosted(tmp_path, use, api=f"{RAISES}:LargeAPI") == "WorkerDiedError"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array(["2024-01-02", "NaT"], "datetime64[ns]"), b'["2024-01-02T00:00:00.000000000",null]'),
        (np.array(["2024-01-02"], "datetime64[D]"), b'["2024-01-02"]'),
        (np.timedelta64(1500, "ms").astype("timedelta64[ns]"), b"1.5"),
    ],
)
def test_dates_and_durations_of_numpy_are_such(value: Any, expected: bytes) -> None:
    assert to_json(value) == expected
    with pytest.raises(EncodeError, match="timedelta64 cannot be encoded"):
        to_json({"x": np.timedelta64(2, "M")})


def test_dataclasses_and_classes_in_a_branch_are_found() -> None:
    source = reference.read(reference.parse(f"{RAISES}:ConfiguredAPI"))
    assert source.constructor.is_open
    assert reference.read(reference.parse(f"{RAISES}:FallbackAPI")).summary == "There where a package is not."
    assert LitServeModel.model_validate({"engine": "litserve", "api": f"{RAISES}:FallbackAPI"})
