"""The ladder keeps what it has measured, and stops early where there is nothing to measure."""

from collections.abc import Sequence

import httpx
import pytest

from benchmarks import assessment
from benchmarks.analysis.measurement import Answer, Measurement
from benchmarks.ladder import measure_ladder
from benchmarks.load.request import ReadAs
from benchmarks.load.workload import Item
from benchmarks.rungs.process import RungError
from clients.record import RequestRecord
from tests.benchmarks.layers import course


class QuickRung:
    """Answers all requests at once, and those to compare as `outcome` says."""

    name = "quick"
    pid: int | None = None
    batch_size: int | None = None
    machines: int | None = None
    read_as: ReadAs | None = "whole"

    def __init__(self, outcome: Exception | list[Answer], error: str | None = None) -> None:
        self._outcome = outcome
        self._error = error

    def start(self) -> None:
        """Nothing."""

    def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
        records = tuple(
            RequestRecord(index=index, scheduled_s=index, sent_s=index, end_s=index + 1, status=200, error=self._error)
            for index, _ in enumerate(items)
        )
        return Measurement(records, None)

    def answer(self, items: Sequence[Item]) -> list[Answer]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def end(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    "problem", [RungError("quick: 500"), httpx.ReadTimeout("slow"), KeyError("choices"), ValueError("no JSON")]
)
def test_answers_that_cannot_be_compared_do_not_lose_what_was_measured(problem: Exception) -> None:
    plan = course(workload={"requests": 8}, parity_prompts=2)
    lines: list[str] = []
    ladder = measure_ladder(lambda: [QuickRung(problem)], plan, lines.append, 2)
    (result,) = ladder.results
    assert lines[0] == "pass 1 of 2, quick: starting"
    assert "pass 2 of 2, quick: starting, about 0 s left" in lines
    assert len(result.measurements[0].records) == 8
    assert any("its answers cannot be compared: " in line and str(problem) in line for line in lines)
    required = assessment.analyse(ladder, plan, require_parity=True)
    assert [finding.rule for finding in required.findings if "cannot be compared" in finding.message] == ["parity"]
    assert "parity" not in [finding.rule for finding in assessment.analyse(ladder, plan).findings]


def test_a_rung_that_answers_nothing_of_the_warm_up_is_not_measured() -> None:
    plan = course(warmup_requests=2)
    with pytest.raises(RungError, match="quick: no request of the warm-up was answered: status 401: who are you"):
        measure_ladder(lambda: [QuickRung([], "status 401: who are you")], plan, lambda _: None, 1)


@pytest.mark.parametrize(("batch_size", "rules"), [(None, ["steady_state"]), (1, [])])
def test_a_rung_that_works_on_one_request_at_a_time_needs_fewer_for_a_steady_state(
    batch_size: int | None, rules: list[str]
) -> None:
    rung = QuickRung([])
    rung.batch_size = batch_size
    plan = course(workload={"requests": 8}, load={"users": 16}, percentiles=[50])
    ladder = measure_ladder(lambda: [rung], plan, lambda _: None, 2)
    assert [finding.rule for finding in assessment.analyse(ladder, plan).findings] == rules


def test_an_open_load_has_no_users_but_as_many_requests_as_are_under_way_on_average() -> None:
    load = {"shape": "constant", "rate_per_s": 1, "users": 16}
    plan = course(workload={"requests": 8}, load=load, percentiles=[50])
    ladder = measure_ladder(lambda: [QuickRung([])], plan, lambda _: None, 2)
    (result,) = ladder.results
    assert (result.users, result.under_way) == (None, 1)
    analysis = assessment.analyse(ladder, plan)
    assert [(rung.users, rung.knee) for rung in analysis.rungs] == [(None, False)]
    assert analysis.findings == []


@pytest.mark.parametrize(
    ("problem", "words"), [(RungError("out of memory"), "out of memory"), (KeyboardInterrupt(), "it was interrupted")]
)
def test_a_late_pass_that_fails_leaves_those_before_and_a_finding(problem: BaseException, words: str) -> None:
    class Failing(QuickRung):
        """Begins to fail in the second pass, at its first or at its second measurement."""

        measured = 0

        def measure(self, items: Sequence[Item], users: int, time_limit_s: float, processes: int) -> Measurement:
            self.measured += 1
            if self.measured == 3:
                raise problem
            return super().measure(items, users, time_limit_s, processes)

    answer = Answer(token_ids=[1])
    failing = Failing([answer])
    plan = course(
        workload={"requests": 8}, load={"users": 2, "shape": "ramp"}, passes=3, percentiles=[50], parity_prompts=1
    )
    lines: list[str] = []
    ladder = measure_ladder(lambda: [failing], plan, lines.append, 3)
    assert ladder.gap == f"pass 2 of 3 was given up: {words}"
    assert lines[-1] == f"{ladder.gap}; what was measured before it is kept"
    assert [(result.users, len(result.measurements), result.answers) for result in ladder.results] == [
        (1, 1, [answer]),
        (2, 1, [answer]),
    ]
    findings = assessment.analyse(ladder, plan).findings
    assert ("passes", ladder.gap) in [(finding.rule, finding.message) for finding in findings]


def test_nothing_is_kept_of_a_first_pass() -> None:
    class Failing(QuickRung):
        """Is interrupted at its start."""

        def start(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_ladder(lambda: [QuickRung([]), Failing([])], course(workload={"requests": 8}), lambda _: None, 2)
