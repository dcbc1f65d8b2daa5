"""Throughput of rungs that count tokens, and of those that do not."""

from benchmarks.analysis.measurement import Measurement, RungResult
from clients.record import RequestRecord


def rung(name: str, answers: int, output_tokens: int | None) -> RungResult:
    """So many answers in a second."""
    records = tuple(
        RequestRecord(index=index, scheduled_s=0.0, sent_s=0.0, end_s=1.0, output_tokens=output_tokens)
        for index in range(answers)
    )
    return RungResult(name, 1, measurements=[Measurement(records, None)])


def test_rungs_are_compared_in_a_unit_that_both_have() -> None:
    served, bare = rung("litport", 4, 32), rung("model", 5, None)
    assert (served.throughput_per_s, bare.throughput_per_s) == (128, 5)
    assert served.ratio_to(bare) == 0.8, "answers, as the bare model counts no tokens"
    assert served.ratio_to(rung("transformers", 2, 80)) == 0.8, "tokens, as both count them"
