"""The ledger: records of each request what became of it, in metrics, `/status`, the audit log and, where on, traces.

The front door calls it at each step of an exchange. It does not raise, and it stores no content of a request.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servers.errors import ApiError
from servers.gateway.audit import Audit
from servers.gateway.exchange import Exchange
from servers.gateway.request_metrics import ModelTimes, RequestMetrics
from servers.gateway.usage import Usage, read_usage
from servers.models.model import Model
from servers.telemetry import tracing

if TYPE_CHECKING:
    from servers.gateway.spans import Spans


class Ledger:
    """The records of all requests. Raises UserError for an audit file that cannot be written."""

    def __init__(self, audit_file: Path | None) -> None:
        self.metrics = RequestMetrics()
        self._audit = Audit(audit_file)
        self._spans = _spans()

    def close(self) -> None:
        """Close the audit file, and send the last spans if the collector takes them."""
        self._audit.close()
        if self._spans is not None:
            self._spans.close()

    def begin(self, exchange: Exchange) -> None:
        """The request's head has come."""
        if self._spans is not None:
            exchange.span = self._spans.begin(exchange.request, exchange.label)

    def reject(self, exchange: Exchange, error: ApiError) -> None:
        """The front door itself answers with an error."""
        self.metrics.rejections.labels(exchange.model_name or "", error.code).inc()
        if exchange.span is not None:
            exchange.span.fail(error.code)

    def fall_back(self, exchange: Exchange, model: Model, fallback: Model) -> None:
        """Another model gets the request, as this one is not ready or has no room."""
        self.metrics.fallbacks.labels(model.name, fallback.name).inc()
        if exchange.span is not None:
            exchange.span.admit()

    def queue(self, exchange: Exchange) -> None:
        """The request waits for its turn from now on."""
        exchange.queued_s = time.monotonic()
        if exchange.span is not None:
            exchange.span.queue()

    def admit(self, exchange: Exchange) -> None:
        """The request has its turn."""
        self._times(exchange).queue_s.observe(time.monotonic() - exchange.queued_s)
        if exchange.span is not None:
            exchange.span.admit()

    def send(self, exchange: Exchange, path: str) -> Mapping[str, str] | None:
        """The model's process gets the request; returns headers by which it joins the trace, None without traces."""
        exchange.response.on_gap = self._times(exchange).inter_chunk_s.observe
        exchange.sent_s = time.monotonic()
        return None if exchange.span is None else exchange.span.send(path)

    def receive(self, exchange: Exchange) -> None:
        """The answer of the model's process is over, or there will be none."""
        if exchange.span is not None:
            exchange.span.receive(exchange.response.status)
        self._times(exchange).upstream_s.observe(time.monotonic() - exchange.sent_s)

    def change(self, **fields: Any) -> None:
        """A command has changed a model."""
        self._audit.write(**fields)

    def end(self, exchange: Exchange, error_status: int | None) -> None:
        """The exchange is over; `error_status` is that of the front door's own error, which may not have been sent."""
        now_s = time.monotonic()
        duration_s = now_s - exchange.begin_s
        status = exchange.response.status or error_status
        first_s = exchange.response.first_event_s
        ttft_s = None if first_s is None else first_s - exchange.begin_s
        model, key = exchange.model_name or "", exchange.key_name or ""
        self.metrics.count(model, exchange.label, str(status or "none"), key)
        if exchange.model is not None:
            times = self.metrics.of(model)
            times.request_s.observe(duration_s)
            if ttft_s is not None:
                times.first_token_s.observe(ttft_s)
            self.metrics.count_tokens(model, key, exchange.usage)
            if exchange.tokens is not None and exchange.tokens.cut_at is not None:
                self.metrics.cut_answers.labels(model).inc()
            outcome = error_status or status or 0  # 0: the client left before it had an answer
            exchange.model.recent.note(
                now_s,
                duration_s,
                ttft_s,
                failed=outcome >= 500,
                refused=outcome < 200 or 400 <= outcome < 500,
                input_tokens=exchange.usage.input_tokens,
                output_tokens=exchange.usage.output_tokens,
            )
        if exchange.span is not None:
            exchange.span.end(status, model, key, ttft_s)
        if self._audit.is_on:
            self._write_line(exchange, status, error_status, duration_s)

    def _times(self, exchange: Exchange) -> ModelTimes:
        name = exchange.model_name
        assert name is not None
        return self.metrics.of(name)

    def _write_line(self, exchange: Exchange, status: int | None, error_status: int | None, duration_s: float) -> None:
        self._audit.write(
            request_id=exchange.request.id,
            key=exchange.key_name,
            client=exchange.request.client,
            method=exchange.request.method,
            path=exchange.request.path[:200],
            model=exchange.model_name,
            fallback_for=exchange.fallback_for.name if exchange.fallback_for else None,
            status=status,
            error=error_status,
            input_tokens=exchange.usage.input_tokens,
            output_tokens=exchange.usage.output_tokens,
            duration_s=round(duration_s, 4),
        )


def _spans() -> "Spans | None":
    """What makes spans, where the standard variables turn traces on; else nothing of the SDK is imported."""
    if not tracing.is_on(os.environ):
        return None
    from servers.gateway.spans import Spans
    from servers.telemetry import otlp

    return Spans(otlp.provider("front door"))


def usage_of(exchange: Exchange) -> Usage:
    """The tokens of all prompts and choices of the answer."""
    usage = read_usage(exchange.tokens, exchange.response.tail)
    card = exchange.model.card if exchange.model is not None else None
    if card is None or not card.counts_one_choice:
        return usage
    return usage.times(exchange.content.prompts, exchange.content.choices)


def count_tokens(exchange: Exchange) -> int:
    """The tokens that the request counts for in the end: those that its answer names, else an estimate from it."""
    status = exchange.response.status
    if status is None:
        return 0  # the model never answered
    if exchange.usage.total is not None:
        return exchange.usage.total
    if 400 <= status < 500:
        return 0  # it refused the request, and generated nothing
    return max(exchange.content.tokens, exchange.response.events)  # an event is about a token
