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
    (result,) = measure_ladder(lambda: [QuickRung(problem)], plan, lines.append, 2)
    assert lines[0] == "pass 1 of 2, quick: starting"
    assert "pass 2 of 2, quick: starting, about 0 s left" in lines
    assert len(result.measurements[0].records) == 8
    assert any("its answers cannot be compared: " in line and str(problem) in line for line in lines)
    required = assessment.analyse([result], plan, {}, require_parity=True)
    assert [finding.rule for finding in required.findings if "cannot be compared" in finding.message] == ["parity"]
    assert "parity" not in [finding.rule for finding in assessment.analyse([result], plan, {}).findings]


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
    results = measure_ladder(lambda: [rung], plan, lambda _: None, 2)
    assert [finding.rule for finding in assessment.analyse(results, plan, {}).findings] == rules
