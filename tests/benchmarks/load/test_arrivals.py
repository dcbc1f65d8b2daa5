"""When requests are due: each shape of load keeps the rate, or the times, that were asked for."""

import json
import math
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.load.arrivals import offered_rate_per_s, schedule
from benchmarks.load.workload import Item, make
from configs.bench import Load, Workload
from configs.errors import UserError


def items(count: int) -> list[Item]:
    return [Item(index, token_ids=[[1, 2, 3]], output_tokens=4) for index in range(count)]


def times(count: int, load: Load, seed: int = 0) -> list[float]:
    return [item.at_s for item in schedule(items(count), load, seed) if item.at_s is not None]


def replay(folder: Path, lines: list[Any], count: int = 4, time_scale: float = 1) -> list[Item]:
    trace = folder / "trace.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return schedule(items(count), Load(shape="trace", trace=trace, time_scale=time_scale), 0)


@pytest.mark.parametrize("shape", ["closed", "ramp"])
def test_a_closed_load_has_no_times(shape: Any) -> None:
    asked = items(5)
    assert schedule(asked, Load(shape=shape), 0) == asked
    assert offered_rate_per_s(asked) is None


def test_constant_arrivals_are_evenly_spaced() -> None:
    found = times(1000, Load(shape="constant", rate_per_s=10))
    assert found == pytest.approx([index / 10 for index in range(1000)], abs=1e-9)


def test_poisson_arrivals_keep_the_rate_and_forget_the_past() -> None:
    found = times(4000, Load(shape="poisson", rate_per_s=50))
    gaps_s = [later - earlier for earlier, later in pairwise(found)]
    assert found[0] == 0
    assert statistics.mean(gaps_s) == pytest.approx(1 / 50, rel=0.05)
    # An exponential distribution has its mean as standard deviation, and e^-x of it beyond x means.
    assert statistics.stdev(gaps_s) == pytest.approx(1 / 50, rel=0.1)
    for means in (0.5, 1, 2):
        share = sum(gap_s > means / 50 for gap_s in gaps_s) / len(gaps_s)
        assert share == pytest.approx(math.exp(-means), abs=0.03)


def test_bursts_come_together_and_keep_the_mean_rate() -> None:
    found = times(4000, Load(shape="bursts", rate_per_s=20, burst_size=5))
    bursts = [found[start : start + 5] for start in range(0, len(found), 5)]
    assert all(len(set(burst)) == 1 for burst in bursts)
    assert len({burst[0] for burst in bursts}) == 800
    assert len(found) / found[-1] == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("shape", ["poisson", "bursts"])
def test_the_same_seed_gives_the_same_times_and_another_gives_others(shape: Any) -> None:
    load = Load(shape=shape, rate_per_s=3)
    assert times(20, load, seed=1) == times(20, load, seed=1)
    assert times(20, load, seed=1) != times(20, load, seed=2)


def test_arrivals_change_nothing_but_the_time() -> None:
    asked = make(Workload(kind="chat"), 6, 0)
    found = schedule(asked, Load(shape="constant", rate_per_s=1), 0)
    assert [(item.index, item.messages, item.after) for item in found] == [
        (item.index, item.messages, item.after) for item in asked
    ]


def test_a_trace_is_replayed_from_its_first_request_in_the_order_of_time(tmp_path: Path) -> None:
    found = replay(tmp_path, [{"timestamp": 27000}, {"timestamp": 25000}, {"timestamp": 25500}], 3, 0.001)
    assert [item.at_s for item in found] == pytest.approx([0, 0.5, 2])
    assert [item.index for item in found] == [0, 1, 2]


def test_a_trace_says_how_long_prompts_and_answers_are_where_it_does(tmp_path: Path) -> None:
    found = replay(
        tmp_path, [{"timestamp": 0, "input_length": 7, "output_length": 9}, {"timestamp": 1, "output_length": None}], 2
    )
    assert found[0].token_ids == [[1, 2, 3, 1, 2, 3, 1]]
    assert [item.output_tokens for item in found] == [9, 4]
    assert found[1].token_ids == [[1, 2, 3]]


def test_a_trace_says_how_long_the_answers_to_whole_requests_are(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text('{"timestamp": 0, "output_length": 9}\n')
    asked = [Item(0, body={"messages": [], "max_tokens": 4}, output_tokens=4)]
    (found,) = schedule(asked, Load(shape="trace", trace=tmp_path / "trace.jsonl"), 0)
    assert (found.output_tokens, (found.body or {})["max_tokens"]) == (9, 9)


def test_a_trace_gives_no_length_to_what_generates_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 7, "output_length": 9}\n')
    asked = [Item(0, picture=b"picture")]
    (found,) = schedule(asked, Load(shape="trace", trace=trace), 0)
    assert (found.output_tokens, found.token_ids, found.at_s) == (None, None, 0)


def test_no_more_is_asked_than_a_trace_has(tmp_path: Path) -> None:
    assert len(replay(tmp_path, [{"timestamp": 0}, {"timestamp": 1}], count=5)) == 2


def test_a_number_in_a_trace_may_be_written_as_text(tmp_path: Path) -> None:
    found = replay(tmp_path, [{"timestamp": "9.5"}, {"timestamp": "10.5", "output_length": "6"}], 2)
    assert [(item.at_s, item.output_tokens) for item in found] == [(0, 4), (1, 6)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"no JSON\n",
        b'{"time": 1}\n',
        b'{"timestamp": null}\n',
        b'{"timestamp": "2026-01-01T00:00:00Z"}\n',
        b"[1, 2]\n",
        b'{"timestamp": 1, "input_length": "many"}\n',
        b'{"timestamp": 1, "output_length": [3]}\n',
        b"\xff\xfe\n",
    ],
)
def test_a_broken_trace_is_the_users_mistake(tmp_path: Path, content: bytes) -> None:
    trace = tmp_path / "broken.jsonl"
    trace.write_bytes(content)
    with pytest.raises(UserError, match=r"^bench\.load\.trace: expected .*broken\.jsonl"):
        schedule(items(3), Load(shape="trace", trace=trace), 0)


def test_a_trace_that_is_gone_is_the_users_mistake(tmp_path: Path) -> None:
    trace = tmp_path / "gone.jsonl"
    trace.write_text('{"timestamp": 0}\n')
    load = Load(shape="trace", trace=trace)
    trace.unlink()
    with pytest.raises(UserError, match=r"^bench\.load\.trace: .*gone\.jsonl"):
        schedule(items(3), load, 0)


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        ([0.0, 0.5, 1.0, 1.5], 2.0),
        ([3.0, 3.0, 5.0], 1.0),
        ([0.0], None),
        ([1.0, 1.0], None),
        ([], None),
        ([None, None], None),
    ],
)
def test_the_offered_rate_is_that_of_the_gaps(at_s: list[float | None], expected: float | None) -> None:
    assert offered_rate_per_s([Item(index, at_s=one) for index, one in enumerate(at_s)]) == expected


def test_the_offered_rate_of_constant_arrivals_is_the_one_asked_for() -> None:
    assert offered_rate_per_s(schedule(items(50), Load(shape="constant", rate_per_s=7), 0)) == pytest.approx(7)
