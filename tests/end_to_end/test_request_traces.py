"""A request is one trace through all processes, and its id is in all of them: with a real vLLM and a real LitAPI."""

import httpx
import pytest

from tests.conftest import Platform
from tests.services.otlp_collector import Collector, Span

CHAT = "smollm2-135m-instruct"
EMBEDDING = "all-minilm-l6-v2"
CLIENT_SPAN = "b7ad6b7169203331"


def _post(platform: Platform, path: str, number: int, body: dict[str, object]) -> httpx.Response:
    headers = {"traceparent": f"00-{_trace(number)}-{CLIENT_SPAN}-01", "x-request-id": f"request-{number}"}
    response = platform.http.post(path, json=body, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["x-request-id"] == f"request-{number}"
    return response


def _trace(number: int) -> str:
    return f"{number:032x}"


def _front_door(collector: Collector, number: int) -> tuple[Span, Span]:
    """The front door's two spans of a request: the whole, and the part within the model's process."""
    server = collector.wait_until(lambda span: span.parent_id == CLIENT_SPAN and span.trace_id == _trace(number))
    return server, collector.wait_for("POST upstream", trace_id=_trace(number))


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_one_trace_from_the_client_to_vllm(platform: Platform, collector: Collector, stream: bool) -> None:
    number = 102 + stream
    body = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": stream}
    _post(platform, "/v1/chat/completions", number, body)
    server, upstream = _front_door(collector, number)
    engine = collector.wait_for("llm_request", trace_id=_trace(number))
    assert (upstream.parent_id, engine.parent_id) == (server.id, upstream.id)
    assert engine.attributes["gen_ai.request.id"] == f"chatcmpl-request-{number}"
    assert engine.attributes["gen_ai.usage.completion_tokens"] == 4
    assert engine.resource["litport.model"] == CHAT
    assert engine.resource["service.name"] == server.resource["service.name"] == "litport"
    assert server.attributes["litport.model"] == CHAT
    assert server.events == (("first event",) if stream else ())
    assert upstream.begin_s <= engine.begin_s <= engine.end_s <= server.end_s + 1


def test_an_embedding_is_one_trace_from_the_client_to_its_worker(platform: Platform, collector: Collector) -> None:
    _post(platform, "/v1/embeddings", 104, {"model": EMBEDDING, "input": "Hello"})
    server, upstream = _front_door(collector, 104)
    worker = collector.wait_for("litserve.worker", trace_id=_trace(104))
    assert (worker.parent_id, upstream.parent_id) == (upstream.id, server.id)
    for span in (server, worker):
        assert span.attributes["litport.request_id"] == "request-104"
    assert worker.resource["litport.model"] == EMBEDDING
    assert worker.attributes["litserve.predict_s"] > 0


def test_vllms_engine_and_worker_tell_how_they_started(platform: Platform, collector: Collector) -> None:
    core = collector.wait_until(lambda span: span.resource.get("vllm.process_kind") == "engine_core")
    assert core.resource["litport.model"] == CHAT
    collector.wait_for("Load weights")


def test_canaries_make_no_traces(platform: Platform, collector: Collector) -> None:
    _post(platform, "/v1/completions", 105, {"model": CHAT, "prompt": "Hello", "max_tokens": 1})
    collector.wait_for("llm_request", trace_id=_trace(105))
    collector.wait_for("POST upstream", trace_id=_trace(105))
    from_outside = {span.trace_id for span in collector.spans if span.name == "POST upstream"}
    worked = {span.trace_id for span in collector.spans if span.name in ("llm_request", "litserve.worker")}
    assert worked - from_outside == set()
