"""The load generator, with Locust itself, against servers that answer as a test asks."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from benchmarks.load import generator
from benchmarks.load.arrivals import schedule
from benchmarks.load.ceiling import ceiling_per_s
from benchmarks.load.request import COMPLETIONS, ReadAs, calls
from benchmarks.load.workload import make
from clients.record import Call, RequestRecord
from configs.bench import Load, Workload
from tests.benchmarks.layers import Layered, course

pytestmark = pytest.mark.alone

REPOSITORY = Path(__file__).parents[3]


def test_a_closed_load_keeps_its_users_busy_and_no_more(layered: Layered) -> None:
    rung = layered(queue_s=0.05)
    asked = course(workload={"requests": 12, "output_tokens": "3"}, load={"users": 3})
    records = rung.measure(asked.items, 3, 30, 1).records
    assert [record.index for record in records] == list(range(12))
    assert all(not record.failed and record.output_tokens == 3 for record in records)
    assert max(_under_way(records)) == 3


def test_every_chunk_has_its_time_and_usage_comes_from_the_server(layered: Layered) -> None:
    rung = layered(prefill_s=0.05, decode_s=0.2)
    asked = course(workload={"requests": 2, "input_tokens": "7", "output_tokens": "5"}, load={"users": 1})
    (record, _) = rung.measure(asked.items, 1, 30, 1).records
    assert (len(record.chunk_s), record.prompt_tokens, record.output_tokens) == (5, 7, 5)
    assert record.chunk_s == sorted(record.chunk_s)
    assert record.ttft_s == pytest.approx(0.05, abs=0.04)
    assert record.tpot_s == pytest.approx(0.2 / 4, abs=0.02)


def test_an_open_load_sends_when_due_whether_answered_or_not(layered: Layered) -> None:
    rung = layered(queue_s=0.5)
    load = {"shape": "constant", "rate_per_s": "20"}
    asked = course(workload={"requests": 10, "output_tokens": "2"}, load=load)
    records = rung.measure(asked.items, 64, 30, 1).records
    begin_s = records[0].scheduled_s
    assert [record.scheduled_s - begin_s for record in records] == pytest.approx([n / 20 for n in range(10)])
    assert max(record.sent_s - record.scheduled_s for record in records) < 0.1
    assert max(_under_way(records)) > 5


def test_a_turn_of_a_chat_waits_for_the_answer_to_the_one_before(layered: Layered) -> None:
    items = make(Workload(kind="chat", turns=3, output_tokens="2"), 6, 0)
    asked = calls(items, COMPLETIONS, "m")
    tokens = [call_with_prompt(call) for call in asked]  # the layered server has no chats
    rung = layered(queue_s=0.05)
    result = generator.generate(rung.url, "events", tokens, 6, 30, processes=2)
    by_index = {record.index: record for record in result.records}
    assert len(by_index) == 6
    for item in items:
        if item.after is not None:
            assert by_index[item.index].sent_s >= by_index[item.after].end_s


def test_each_user_has_a_chat_of_their_own(layered: Layered) -> None:
    items = make(Workload(kind="chat", turns=4, output_tokens="2"), 16, 0)
    asked = [call_with_prompt(call) for call in calls(items, COMPLETIONS, "m")]
    result = generator.generate(layered(queue_s=0.05).url, "events", asked, 4, 30)
    by_time = sorted(result.records, key=lambda record: record.sent_s)
    assert {record.index for record in by_time[:4]} == {0, 4, 8, 12}
    assert (len(by_time), max(_under_way(by_time))) == (16, 4)


def test_a_turn_of_an_open_load_is_due_at_its_time_or_when_the_one_before_is_answered(layered: Layered) -> None:
    chats = make(Workload(kind="chat", turns=2, output_tokens="2"), 4, 0)
    timed = [msgspec.structs.replace(item, at_s=at_s) for item, at_s in zip(chats, (0, 0.1, 0.2, 1), strict=True)]
    asked = [call_with_prompt(call) for call in calls(timed, COMPLETIONS, "m")]
    records = generator.generate(layered(queue_s=0.3).url, "events", asked, 2, 30).records
    begin_s = records[0].scheduled_s
    assert records[1].scheduled_s == records[0].end_s
    assert [record.scheduled_s - begin_s for record in records[2:]] == pytest.approx([0.2, 1])
    assert max(record.sent_s - record.scheduled_s for record in records) < 0.1


def test_failures_are_records_with_their_kind(layered: Layered) -> None:
    rung = layered(fail_every=3)
    asked = course(workload={"requests": 6, "output_tokens": "2"}, load={"users": 1})
    measured = rung.measure(asked.items, 1, 30, 1)
    errors = [record.error for record in measured.records if record.failed]
    assert errors == ["status 500: told to fail"] * 2
    assert measured.time is None


def test_a_server_that_is_not_there_is_a_failure_and_no_crash() -> None:
    asked = calls(make(Workload(), 2, 0), COMPLETIONS, "m")
    result = generator.generate("http://127.0.0.1:9", "events", asked, 1, 5)
    assert [(record.status, record.failed) for record in result.records] == [(0, True)] * 2


def test_several_generators_share_the_calls(layered: Layered) -> None:
    rung = layered(queue_s=0.01)
    asked = course(workload={"requests": 9, "output_tokens": "2"}, load={"users": 4})
    measured = rung.measure(asked.items, 4, 30, 3)
    assert [record.index for record in measured.records] == list(range(9))
    assert len(measured.costs) == 3


def test_nothing_is_sent_after_the_time_limit(layered: Layered) -> None:
    rung = layered(queue_s=0.2)
    asked = course(workload={"requests": 50, "output_tokens": "2"}, load={"users": 1})
    records = rung.measure(asked.items, 1, 1.0, 1).records
    assert 2 <= len(records) <= 6
    assert max(record.sent_s for record in records) < records[0].sent_s + 1.1


@pytest.mark.parametrize("read_as", ["events", "lines", "whole"])
def test_the_generator_reads_every_form_of_the_null_server(read_as: ReadAs) -> None:
    assert ceiling_per_s(read_as, 4, users=4, processes=1) > 10


def test_open_loads_are_the_same_for_the_same_seed() -> None:
    items = make(Workload(), 20, 3)
    load = Load(shape="poisson", rate_per_s=5)
    assert schedule(items, load, 3) == schedule(items, load, 3)


def test_the_same_users_run_under_locusts_own_command_line(tmp_path: Path, layered: Layered) -> None:
    rung = layered(queue_s=0.01)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", "clients/locustfile.py", "--headless", "--host", rung.url),
            *("--users", "2", "--spawn-rate", "10", "--run-time", "3s", "--csv", str(tmp_path / "locust")),
            *("--model", "m", "--output-tokens", "3", "--exit-code-on-error", "1"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "locust_stats.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["Type"], row["Name"], row["Failure Count"]) == ("CompletionUser", "/v1/completions", "0")
    assert int(row["Request Count"]) > 5


def call_with_prompt(call: Call) -> Call:
    body = {"prompt": [1, 2], "max_tokens": 2, "stream": True}
    return msgspec.structs.replace(call, path="/v1/completions", body=json.dumps(body).encode())


def _under_way(records: Sequence[RequestRecord]) -> list[int]:
    """How many requests were under way each time one was sent."""
    return [sum(other.sent_s <= record.sent_s < other.end_s for other in records) for record in records]
