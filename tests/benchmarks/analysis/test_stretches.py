"""Stretches follow the work, and the interval of a ratio is as wide as what varied."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.analysis import stretches
from benchmarks.analysis.stretches import Stretches
from clients.record import RequestRecord, window

USERS = 16


def record(sent_s: float, end_s: float, **more: object) -> RequestRecord:
    return RequestRecord(index=0, scheduled_s=sent_s, sent_s=sent_s, end_s=end_s, status=200, **more)  # type: ignore[arg-type]


def one(_: RequestRecord) -> float:
    return 1.0


def in_step(draw: np.random.Generator, seconds: float, noise: float) -> list[RequestRecord]:
    """64 requests of 16 users who are answered together, and ask together."""
    records, begin_s = [], 0.0
    for _ in range(64 // USERS):
        end_s = begin_s + seconds * float(draw.lognormal(0, noise))
        records += [record(begin_s, end_s + user * 1e-4) for user in range(USERS)]
        begin_s = end_s + USERS * 1e-4
    return records


def one_after_the_other(draw: np.random.Generator, seconds: float, noise: float) -> list[RequestRecord]:
    """64 requests of 16 users at a server that works on one at a time."""
    ends_s = np.cumsum(seconds / USERS * draw.lognormal(0, noise, 64))
    begins_s = [0.0] * USERS + [float(end_s) for end_s in ends_s[:-USERS]]
    return [record(begin_s, float(end_s)) for begin_s, end_s in zip(begins_s, ends_s, strict=True)]


def in_tokens(draw: np.random.Generator, seconds: float, noise: float) -> list[RequestRecord]:
    """64 streamed answers of other lengths each, from a server that makes a token of every answer at a time."""
    lengths = [int(length) for length in np.random.default_rng(7).uniform(8, 64, 64)]
    under_way: list[tuple[int, RequestRecord]] = []
    records, now_s = [], 0.0
    while lengths or under_way:
        while lengths and len(under_way) < USERS:
            under_way.append((lengths.pop(), record(now_s, 0, chunk_s=[])))
        now_s += seconds / 36 * float(draw.lognormal(0, noise))
        for length, answer in under_way:
            answer.chunk_s.append(now_s)
            if len(answer.chunk_s) == length:
                answer.end_s, answer.output_tokens = now_s, length
                records.append(answer)
        under_way = [(length, answer) for length, answer in under_way if len(answer.chunk_s) < length]
    return records


SERVERS = (in_step, one_after_the_other, in_tokens)


def passes(server: object, draw: np.random.Generator, seconds: float) -> list[list[RequestRecord]]:
    """The default run: 64 requests of 16 users, twice."""
    return [server(draw, seconds, 0.05) for _ in range(2)]  # type: ignore[operator]


def ratio(*sides: Sequence[Sequence[RequestRecord]]) -> tuple[float, float, float]:
    parts: tuple[list[Stretches], ...] = ([], [])
    for records in zip(*sides, strict=True):
        count = min(stretches.rounds(side, window(side)) for side in records)
        for side, cuts in zip(records, parts, strict=True):
            cuts.append(stretches.cut(side, window(side), lambda answer: answer.output_tokens or 1, count))
    spans = [sum(end_s - begin_s for begin_s, end_s in map(window, side)) for side in sides]
    value, error = spans[0] / spans[1], stretches.ratio_error(*parts)
    return value * (1 - error), value, value * (1 + error)


def test_stretches_have_the_same_work_and_the_time_that_it_took() -> None:
    parts = record(0, 10, chunk_s=[0.25, 0.75, 9.75, 10.0])
    cut = stretches.cut([parts], (0, 10), lambda _: 8.0, 4)
    assert (cut.work, list(cut.lengths_s)) == (2, [0.25, 0.5, 9.0, 0.25])
    assert list(stretches.cut([parts], (0, 10), lambda _: 8.0, 2).lengths_s) == [0.75, 9.25]


def test_users_in_step_are_not_cut_within_a_round() -> None:
    records = in_step(np.random.default_rng(0), 1.0, 0)
    assert stretches.rounds(records, window(records)) == 4
    assert list(stretches.cut(records, window(records), one, 4).lengths_s) == pytest.approx([1.0] * 4, abs=0.01)


def test_a_pass_without_an_answer_is_time_without_work() -> None:
    failed = record(0, 8, error="status 500")
    assert stretches.rounds([failed], (0, 8)) == 4
    cut = stretches.cut([failed], (0, 8), one, 4)
    assert (cut.work, list(cut.lengths_s)) == (0, [2.0] * 4)


@pytest.mark.parametrize("server", SERVERS)
def test_the_default_run_tells_ten_percent_from_nothing_and_equal_servers_pass_the_gate(server: object) -> None:
    draw = np.random.default_rng(1)
    runs = 100
    slower = [ratio(passes(server, draw, 1.0), passes(server, draw, 1 / 0.9)) for _ in range(runs)]
    assert all(value == pytest.approx(0.9, abs=0.1) for _, value, _ in slower)
    assert sum(high < 1 for _, _, high in slower) >= 0.95 * runs
    equal = [ratio(passes(server, draw, 1.0), passes(server, draw, 1.0)) for _ in range(runs)]
    assert not [interval for interval in equal if interval[2] < 0.95], "compare --fail-below 0.95 passes A = A"
    assert sum(low <= 1 <= high for low, _, high in equal) >= 0.9 * runs, "95 % intervals"


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (7, 2.365), (15, 2.131), (39, 2.023)])
def test_quantiles_of_students_t_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert stretches._t_quantile(freedom) == pytest.approx(quantile, rel=0.01)
