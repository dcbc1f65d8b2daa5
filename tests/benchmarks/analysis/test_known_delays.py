"""Delays that are known, layer by layer: each must be found in its row, to a tenth (and a scheduler's milliseconds)."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from benchmarks.analysis import breakdown
from benchmarks.analysis.breakdown import Breakdown
from benchmarks.load import generator
from benchmarks.load.request import COMPLETIONS, Endpoint, calls
from benchmarks.load.workload import Item, make
from benchmarks.rungs import series
from benchmarks.rungs.harness import row_readers
from clients.record import Call
from configs.bench import Workload
from configs.settings import LitServeModel
from servers.engines.base import get
from servers.engines.litserve.engine import LitServeEngine
from tests.benchmarks.layers import Layered, course
from tests.services.front_door import Door, open_door
from tests.services.tiny_engine import TinyEngine

pytestmark = pytest.mark.alone

DELAYS = {"http_s": 0.06, "template_s": 0.08, "queue_s": 0.1, "prefill_s": 0.12, "decode_s": 0.2, "tail_s": 0.05}
ROWS = {
    "HTTP, JSON, SSE in vLLM": 0.06 + 0.05,
    "template, tokenise, hand-over": 0.08,
    "scheduler queue": 0.1,
    "prefill": 0.12,
    "decode": 0.2,
}


def found(time: Breakdown | None) -> dict[str, float]:
    assert time is not None
    assert time.closure_error == pytest.approx(0, abs=0.02), time
    return {row.layer.label: row.seconds for row in time.rows}


def assert_known(rows: dict[str, float], known: dict[str, float]) -> None:
    wrong = {
        name: (rows[name], delay)
        for name, delay in known.items()
        if not delay * 0.9 <= rows[name] <= delay * 1.1 + 0.01
    }
    assert wrong == {}
    assert {name: row for name, row in rows.items() if name not in known and abs(row) > 0.03} == {}


def test_each_layer_of_vllm_is_found_in_its_row(layered: Layered) -> None:
    rung = layered(**DELAYS)
    asked = course(workload={"requests": 8, "output_tokens": "5"}, load={"users": 4})
    measured = rung.measure(asked.items, 4, 30, 1)
    assert_known(found(measured.time), ROWS)


def test_a_late_client_is_found_in_its_row(layered: Layered) -> None:
    rung = layered(queue_s=0.2)
    asked = course(workload={"requests": 6, "output_tokens": "2"}, load={"shape": "constant", "rate_per_s": "10"})
    # One user for requests that come twice as fast as they are answered: each is later than the one before.
    measured = rung.measure(asked.items, 1, 30, 1)
    rows = found(measured.time)
    assert rows["client lateness"] == pytest.approx(sum(0.1 * late for late in range(6)) / 6, rel=0.15)
    assert rows["scheduler queue"] == pytest.approx(0.2, rel=0.1)


def test_the_front_door_and_the_layers_behind_it_are_found_in_their_rows(tmp_path: Path) -> None:
    argv = ["-m", "tests.services.layered_server", json.dumps(DELAYS)]
    asked = calls(make(Workload(output_tokens="5"), 8, 0), COMPLETIONS, "m")
    with open_door(tmp_path, TinyEngine("m", frozenset({"/v1/completions"}), argv=argv)) as door:
        assert_known(rows_of(door, asked, "events", 4), ROWS)


def rows_of(door: Door, asked: list[Call], read_as: str, users: int) -> dict[str, float]:
    """The rows of these calls through a front door, by its own series and those of the process behind it."""
    model = door.supervisor.models["m"]

    async def page() -> bytes:
        connection = model.choose().connection
        assert connection is not None
        return await get(connection, "/metrics")

    def read() -> list[dict[str, float]]:
        own = series.parse(generate_latest(door.app.metrics).decode())
        text = asyncio.run_coroutine_threadsafe(page(), door.loop).result(10).decode()
        return [series.parse(text), own]

    before = read()
    result = generator.generate(str(door.client.base_url).rstrip("/"), read_as, asked, users, 30)
    server, own = (series.difference(one, other) for one, other in zip(before, read(), strict=True))
    return found(breakdown.break_down(result.records, server, own, row_readers()))


SLOW_API = """
import time

import litserve


class SlowAPI(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        time.sleep(0.05)
        return request

    def predict(self, x):
        time.sleep(0.1)
        return x

    def encode_response(self, output):
        time.sleep(0.03)
        return {"output": 1}
"""


@pytest.fixture(scope="module")
def slow_door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A front door before a host with the slow API, in batches of the parameter's size."""
    folder, batch = tmp_path_factory.mktemp("slow"), request.param
    (folder / "slow_api.py").write_text(SLOW_API)
    batches: dict[str, Any] = {"max_batch_size": batch, "batch_timeout_s": 0.2} if batch > 1 else {}
    settings = LitServeModel(engine="litserve", api=f"{folder}/slow_api.py:SlowAPI", example={}, **batches)
    engine = LitServeEngine("m", settings, folder / "card.json", "warning")
    with open_door(folder, engine) as door:
        yield door


@pytest.mark.parametrize(
    ("users", "batch", "slow_door"),
    [(1, 1, 1), pytest.param(2, 1, 1, marks=pytest.mark.long), (2, 2, 2)],
    indirect=["slow_door"],
)
def test_each_step_of_a_litapi_is_found_in_its_row(slow_door: Door, users: int, batch: int) -> None:
    items = [Item(index, body={"x": index}) for index in range(8)]
    rows = rows_of(slow_door, calls(items, Endpoint("json", "/predict/m"), "m"), "whole", users)
    own = {"decode": 0.05 * batch, "predict": 0.1, "encode": 0.03 * batch}
    if batch < users:
        own["queue"] = 0.18 * 7 / 8  # the other user's request is in the worker: in all of its steps, but at the start
    assert_known(rows, own)
