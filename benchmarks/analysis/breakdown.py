"""Where the time goes: rows whose sum is the latency that the client measured.

Each row is the difference of two nested intervals, both measured, a mean over the same requests: client, front door,
upstream, the child's HTTP server, its engine. So the rows add up as long as the intervals really lie within each other
and count the same requests. What breaks that shows: a row below zero counts as closure error, and so does a server that
counted other requests than the client. Names of vLLM's series are those of vLLM 0.32, `/metrics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rungs.scrape import Series
from clients.record import RequestRecord


@dataclass(frozen=True)
class Row:
    """One part of the latency: seconds a request, mean."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Breakdown:
    """Rows in the order in which a request passes them; `e2e_s` is their measured total, from the scheduled time.

    `closure_error` is (sum of the rows, those below zero left out, - e2e) / e2e; None when the server counted other
    requests than the client, which `note` then says.
    """

    rows: tuple[Row, ...]
    e2e_s: float
    closure_error: float | None
    note: str = ""


def break_down(records: Sequence[RequestRecord], server: Series, door: Series | None = None) -> Breakdown:
    """The rows of a server's answers: `server` is what its series gained, `door` what the front door's did, if any.

    Without series that we know, the time behind the client is one row.
    """
    count = len(records)
    late_s = sum(record.sent_s - record.scheduled_s for record in records) / count
    client_s = sum(record.end_s - record.sent_s for record in records) / count
    rows = [Row("client lateness", late_s)]
    counted: set[float] = set()
    inner = client_s
    if door:
        door_s, upstream_s = (
            _mean(door, "litport_request_duration_seconds", counted),
            _mean(door, "litport_upstream_duration_seconds", counted),
        )
        rows += [Row("network, accept, client read", client_s - door_s), Row("front door", door_s - upstream_s)]
        inner = upstream_s
    hop = "hop to the model's process" if door else "network, accept, client read"
    if "vllm:e2e_request_latency_seconds_sum" in server:
        rows += _vllm(server, inner, hop, counted)
    elif "litserve_step_seconds_total/http" in server:
        rows += _litserve(server, inner, hop, counted)
    elif "naive_http_seconds_sum" in server:
        http_s, model_s = _mean(server, "naive_http_seconds", counted), _mean(server, "naive_model_seconds", counted)
        rows += [Row(hop, inner - http_s), Row("HTTP and parsing", http_s - model_s), Row("model", model_s)]
    else:
        rows.append(Row("server", inner))
    return _closed(rows, late_s + client_s, count, counted)


def of_steps(records: Sequence[RequestRecord], steps: Sequence[tuple[str, float]]) -> Breakdown:
    """The rows of a model called without a server; `steps` are seconds of all requests together, by name."""
    count = len(records)
    late_s = sum(record.sent_s - record.scheduled_s for record in records) / count
    e2e_s = sum(record.e2e_s for record in records) / count
    rows = [Row("waiting for the model", late_s), *(Row(name, spent_s / count) for name, spent_s in steps)]
    return _closed([*rows, Row("loop", e2e_s - sum(row.seconds for row in rows))], e2e_s, count, set())


def _vllm(server: Series, inner: float, hop: str, counted: set[float]) -> list[Row]:
    e2e_s = _mean(server, "vllm:e2e_request_latency_seconds", counted)
    ttft_s = _mean(server, "vllm:time_to_first_token_seconds", counted)
    queue_s = _mean(server, "vllm:request_queue_time_seconds", counted)
    prefill_s = _mean(server, "vllm:request_prefill_time_seconds", counted)
    decode_s = _mean(server, "vllm:request_decode_time_seconds", counted)
    rows = [Row("engine loop", inner - e2e_s)]
    if "http_request_duration_seconds_sum" in server:
        http_s = _mean(server, "http_request_duration_seconds", counted)
        rows = [Row(hop, inner - http_s), Row("HTTP, JSON, SSE in vLLM", http_s - e2e_s)]
    return [
        *rows,
        Row("template, tokenise, hand-over", ttft_s - queue_s - prefill_s),
        Row("scheduler queue", queue_s),
        Row("prefill", prefill_s),
        Row("decode", decode_s),
        Row("output-hop drift", (e2e_s - ttft_s) - decode_s),
    ]


def _litserve(server: Series, inner: float, hop: str, counted: set[float]) -> list[Row]:
    def mean(step: str) -> float:
        requests = server.get(f"litserve_step_requests_total/{step}", 0.0)
        counted.add(requests)
        return server.get(f"litserve_step_seconds_total/{step}", 0.0) / requests if requests else 0.0

    names = {
        "receive": "HTTP and parsing in LitServe",
        "queue": "queue",
        "batch_wait": "batch wait",
        "decode": "decode",
        "predict": "predict",
        "encode": "encode",
    }
    http_s = mean("http")
    rows = [Row(words, mean(step)) for step, words in names.items() if f"litserve_step_seconds_total/{step}" in server]
    # Plain LitServe does not tell when a request leaves its queue.
    rest = "return" if "litserve_step_seconds_total/queue" in server else "queue, batch wait and return"
    return [Row(hop, inner - http_s), *rows, Row(rest, http_s - sum(row.seconds for row in rows))]


def _mean(series: Series, name: str, counted: set[float]) -> float:
    requests = series.get(f"{name}_count", 0.0)
    counted.add(requests)
    return series.get(f"{name}_sum", 0.0) / requests if requests else 0.0


def _closed(rows: Sequence[Row], e2e_s: float, count: int, counted: set[float]) -> Breakdown:
    if counted - {float(count)}:
        others = ", ".join(f"{number:g}" for number in sorted(counted - {float(count)}))
        note = f"the server counted {others} requests, the client {count}"
        return Breakdown(tuple(rows), e2e_s, None, note)
    total_s = sum(max(row.seconds, 0.0) for row in rows)
    return Breakdown(tuple(rows), e2e_s, (total_s - e2e_s) / e2e_s if e2e_s else None)
