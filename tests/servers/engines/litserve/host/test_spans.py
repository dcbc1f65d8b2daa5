from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from servers.engines.litserve.host import wire
from servers.engines.litserve.host.failure import failure_of
from servers.engines.litserve.host.spans import WorkSpans
from servers.engines.litserve.host.work import Work

_TRACE_ID = 0xABCDEF


def _work(number: int, *, traced: bool = True) -> Work:
    parent = f"00-{_TRACE_ID:032x}-{number:016x}-01"
    headers = [("traceparent", parent)] if traced else []
    reply: Any = None
    work = Work(None, reply, wire.Request(number, 0, 0, "", f"r{number}", headers=headers, queued_s=1.0))
    work.begun_s, work.predict_s = 2.0, 0.5
    return work


def test_works_with_a_trace_get_spans_below_it_and_a_batch_has_one_of_its_own() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = WorkSpans(provider)
    works = [_work(1), _work(2), _work(3, traced=False)]
    running = spans.begin(works)
    assert running is not None
    current = trace.get_current_span().get_span_context()
    works[1].failure = failure_of(ValueError())
    spans.end(running)
    made = exporter.get_finished_spans()
    assert [span.name for span in made] == [
        "litserve.queue",
        "litserve.queue",
        "litserve.predict",
        "litserve.batch",
        "litserve.worker",
        "litserve.worker",
    ]
    assert {span.context.trace_id for span in made if span.context} == {_TRACE_ID}
    by_name = {span.name: span for span in made}
    assert by_name["litserve.batch"].get_span_context() == current
    assert len(by_name["litserve.batch"].links) == 2
    predict = by_name["litserve.predict"]
    assert ((predict.end_time or 0) - (predict.start_time or 0)) / 1e9 == pytest.approx(0.5, abs=1e-3)
    first, second = made[-2:]
    assert (first.status.is_ok, second.status.is_ok) == (True, False)
    assert second.attributes is not None
    assert second.attributes["error.type"] == "ValueError"


def test_works_without_a_trace_get_no_span() -> None:
    assert WorkSpans(TracerProvider()).begin([_work(1, traced=False)]) is None
