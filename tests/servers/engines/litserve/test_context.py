"""The id of a request in the log lines of a LitAPI's worker, and its spans at a collector."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import STRANGERS, Child, running
from tests.services.otlp_collector import Collector, Span
from tests.services.polling import wait_until

TALKS = f"{STRANGERS}/talks.py"
CLIENT_SPAN = "b7ad6b7169203331"


def _ask(child: Child, request_id: str, trace: int | None = None, **body: Any) -> httpx.Response:
    headers = {"x-request-id": request_id}
    if trace is not None:
        headers["traceparent"] = f"00-{trace:032x}-{CLIENT_SPAN}-01"
    return child.http.post("/predict", json={"name": f"the name of {request_id}", **body}, headers=headers)


def _lines(child: Child, words: str, count: int = 1) -> list[str]:
    """The lines of the child's log that hold these words, once there are so many."""

    def lines() -> list[str]:
        return [line for line in child.log_file.read_text().splitlines() if words in line]

    wait_until(lambda: len(lines()) >= count, 10, problem=child.log_file.read_text)
    return lines()


def _ids(line: str) -> set[str]:
    match = re.search(r" request_id=([A-Za-z0-9._:,-]+)$", line)
    return set(match.group(1).split(",")) if match else set()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("TalkingAPI", {}),
        pytest.param("TalkingStreamAPI", {"stream": True}, marks=pytest.mark.long),
        ("TalkingAsyncAPI", {}),
        pytest.param("TalkingAsyncStreamAPI", {"stream": True}, marks=pytest.mark.long),
        ("TalkingBatchesAPI", {"max_batch_size": 2, "batch_timeout": 0.01}),
    ],
)
def test_a_plug_ins_line_ends_in_the_id_of_its_request(serve: Serve, name: str, settings: dict[str, Any]) -> None:
    child = serve(api=f"{TALKS}:{name}", **_async("Async" in name), **settings)
    with ThreadPoolExecutor(4) as pool:
        ids = [f"{name}.{number}:a-b_c".replace("_", "") for number in range(4)]
        for answer in pool.map(lambda request_id: _ask(child, request_id, wait_s=0.05), ids):
            assert answer.status_code == 200
    for request_id in ids:
        lines = _lines(child, f"working on the name of {request_id} ")
        assert all(request_id in _ids(line) for line in lines)
        assert settings.get("max_batch_size") or all(_ids(line) == {request_id} for line in lines)


def _async(is_async: bool) -> dict[str, Any]:
    return {"init": {"enable_async": True}} if is_async else {}


def test_outside_of_requests_and_without_an_id_lines_are_as_they_were(serve: Serve) -> None:
    child = serve(api=f"{TALKS}:TalkingAPI")
    child.predict(name="nobody")
    assert _lines(child, "nobody asks yet")[-1].endswith("WARNING:stranger:nobody asks yet")
    assert _lines(child, "working on nobody")[-1].endswith("working on nobody")


def test_the_threads_of_a_plug_in_are_heard_with_the_id(serve: Serve) -> None:
    child = serve(api=f"{TALKS}:TalkingAPI")
    _ask(child, "r-thread", in_thread=True)
    assert _ids(_lines(child, "from a thread")[-1]) == {"r-thread"}


def test_an_error_of_the_api_names_the_request_on_each_line(serve: Serve) -> None:
    child = serve(api=f"{TALKS}:TalkingAPI")
    assert _ask(child, "r-failed", fail="badly").status_code == 500
    for words in ("the API failed while it worked on a request", "Traceback", "line 2", "ValueError: no such secret"):
        assert _ids(_lines(child, words)[-1]) == {"r-failed"}, words


def test_the_error_of_a_batch_names_all_its_requests(serve: Serve) -> None:
    child = serve(api=f"{TALKS}:TalkingBatchesAPI", max_batch_size=2, batch_timeout=0.5)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda request_id: _ask(child, request_id, fail="badly"), ["r-1", "r-2"]))
    assert _ids(_lines(child, "predict failed for a batch of 2 (ValueError)")[-1]) == {"r-1", "r-2"}
    _ask(child, "r-3")
    assert _ids(_lines(child, "the name of r-3")[-1]) == {"r-3"}


def test_plain_logging_that_a_plug_in_sets_up_works_and_gets_the_id(tmp_path: Path) -> None:
    with running(tmp_path, api=f"{TALKS}:ConfiguredAPI") as child:
        _ask(child, "r-plain")
        assert _lines(child, "working on")[-1].endswith("the name of r-plain request_id=r-plain")


@pytest.mark.long
def test_a_format_of_a_plug_ins_own_is_left_alone_and_can_name_the_id(tmp_path: Path) -> None:
    with running(tmp_path, api=f"{TALKS}:ConfiguredAPI", init={"format": "<%(request_id)s> %(message)s ends"}) as child:
        _ask(child, "r-own")
        assert _lines(child, "working on")[-1] == "<r-own> working on the name of r-own ends"


def test_a_plug_ins_own_request_id_does_not_clash(serve: Serve) -> None:
    child = serve(api=f"{TALKS}:TalkingAPI")
    assert _ask(child, "r-clash", extra={"request_id": "its-own"}).status_code == 200
    assert _ids(_lines(child, "r-clash")[-1]) == {"its-own"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        for name, value in collector.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")  # ms
        yield collector


def _worker_of(collector: Collector, request_id: str) -> Span:
    return collector.wait_until(_named("litserve.worker", request_id))


def _named(name: str, request_id: str) -> Callable[[Span], bool]:
    return lambda span: span.name == name and span.attributes.get("litport.request_id") == request_id


def test_a_request_has_spans_in_queue_and_worker_and_a_plug_ins_are_below(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, api=f"{TALKS}:TalkingAPI", traces=True) as child:
        _ask(child, "r-1", 1, wait_s=0.1)
        worker = _worker_of(collector, "r-1")
        queue, predict = collector.wait_for("litserve.queue"), collector.wait_for("litserve.predict")
        own = collector.wait_for("stranger.work")
    spans = collector.spans
    assert {span.trace_id for span in spans} == {f"{1:032x}"}
    assert queue.parent_id == worker.parent_id == CLIENT_SPAN
    assert predict.parent_id == own.parent_id == worker.id
    assert worker.resource["litport.process"] == "worker"
    assert {"litserve.decode", "litserve.encode"} <= {span.name for span in spans}
    assert worker.attributes["litserve.batch_size"] == 1
    assert 0.1 <= worker.attributes["litserve.predict_s"] < 1
    assert queue.begin_s <= queue.end_s <= worker.begin_s
    assert worker.begin_s <= predict.begin_s <= predict.end_s <= worker.end_s
    assert "the name of" not in str(spans)


@pytest.mark.parametrize(
    ("name", "is_async"),
    [
        ("TalkingStreamAPI", False),
        ("TalkingAsyncAPI", True),
        pytest.param("TalkingAsyncStreamAPI", True, marks=pytest.mark.long),
    ],
)
def test_streams_and_async_apis_have_the_same_spans(
    tmp_path: Path, collector: Collector, name: str, is_async: bool
) -> None:
    stream: dict[str, Any] = {"stream": True} if "Stream" in name else {}
    with running(tmp_path, api=f"{TALKS}:{name}", traces=True, **_async(is_async), **stream) as child:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: _ask(child, f"r-{number}", number, wait_s=0.1), [1, 2, 3]))
        for number in (1, 2, 3):
            worker = _worker_of(collector, f"r-{number}")
            assert worker.trace_id == f"{number:032x}"
            assert not worker.is_error
            own = collector.wait_for("stranger.work", trace_id=worker.trace_id)
            assert own.parent_id == worker.id
            assert worker.end_s - worker.begin_s >= (0.3 if stream else 0.1)
            # Of a stream, all that makes its parts is one step.
            collector.wait_for("litserve.predict" if stream else "litserve.encode", trace_id=worker.trace_id)


def test_a_batch_is_below_its_first_request_and_linked_to_all(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, api=f"{TALKS}:TalkingBatchesAPI", traces=True, max_batch_size=3, batch_timeout=2) as child:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda number: _ask(child, f"r-{number}", number), [1, 2, 3]))
        workers = [_worker_of(collector, f"r-{number}") for number in (1, 2, 3)]
        batch = collector.wait_for("litserve.batch")
        predict = collector.wait_for("litserve.predict")
        own = collector.wait_for("stranger.work")
    assert [worker.trace_id for worker in workers] == [f"{number:032x}" for number in (1, 2, 3)]
    assert set(batch.links) == {worker.id for worker in workers}
    assert all(worker.links == (batch.id,) for worker in workers)
    assert batch.parent_id in {worker.id for worker in workers}
    assert predict.parent_id == own.parent_id == batch.id
    assert all(worker.attributes["litserve.batch_size"] == 3 for worker in workers)
    assert len({worker.attributes["litserve.predict_s"] for worker in workers}) == 1


@pytest.mark.parametrize(("fail", "status", "kind"), [("badly", 500, "ValueError"), ("politely", 422, None)])
def test_a_failure_is_told_by_its_kind_and_never_in_words(
    tmp_path: Path, collector: Collector, fail: str, status: int, kind: str | None
) -> None:
    with running(tmp_path, api=f"{TALKS}:TalkingAPI", traces=True) as child:
        assert _ask(child, "r-1", 1, fail=fail).status_code == status
        worker = _worker_of(collector, "r-1")
        assert (worker.attributes.get("error.type"), worker.is_error) == (kind, kind is not None)
        assert worker.attributes["http.response.status_code"] == status
        if kind:
            assert collector.wait_for("litserve.predict").is_error
        _ask(child, "r-2", 2)
        assert _worker_of(collector, "r-2").trace_id == f"{2:032x}"
        assert collector.wait_for("stranger.work", trace_id=f"{2:032x}").parent_id == _worker_of(collector, "r-2").id
    ours = [span for span in collector.spans if span.name != "stranger.work"]
    assert "the name of" not in str(ours)


def test_a_request_without_a_trace_and_one_that_is_not_sampled_have_no_spans(
    tmp_path: Path, collector: Collector
) -> None:
    with running(tmp_path, api=f"{TALKS}:TalkingBatchesAPI", traces=True, max_batch_size=2, batch_timeout=0.3) as child:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda trace: _ask(child, f"r-{trace}", trace), [None, 1]))
        headers = {"traceparent": f"00-{2:032x}-{CLIENT_SPAN}-00"}
        assert child.http.post("/predict", json={"name": "n"}, headers=headers).status_code == 200
        _ask(child, "r-3", 3)
        _worker_of(collector, "r-3")
    ours = {span.trace_id for span in collector.spans if span.name != "stranger.work"}
    assert ours == {f"{1:032x}", f"{3:032x}"}


def test_the_last_spans_are_sent_before_the_child_ends(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTEL_BSP_SCHEDULE_DELAY")
    with running(tmp_path, api=f"{TALKS}:TalkingAPI", traces=True) as child:
        _ask(child, "r-1", 1)
        child.process.send_signal(signal.SIGTERM)
        begin_s = time.monotonic()
        assert child.process.wait(timeout=10) == 0
        assert time.monotonic() - begin_s < 4
    _worker_of(collector, "r-1")
