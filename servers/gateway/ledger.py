"""What became of each request: counted, noted for the status and for the audit, and told as spans where that is wanted.

The front door says what happens, and nothing else. It refuses to fail a request, and to keep what one says.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from servers.errors import ApiError
from servers.gateway.audit import Audit
from servers.gateway.exchange import Visit
from servers.gateway.request_metrics import RequestMetrics
from servers.telemetry import tracing

if TYPE_CHECKING:
    from servers.gateway.spans import Spans

_UNRECORDED = frozenset({"/health", "/ready"})


class Ledger:
    """The books of the requests. Raises UserError for an audit file that cannot be written."""

    def __init__(self, audit_file: Path | None) -> None:
        self.metrics = RequestMetrics()
        self._audit = Audit(audit_file)
        self._spans = _spans()

    def close(self) -> None:
        """Leave no file open, and no span unsent if its collector takes it."""
        self._audit.close()
        if self._spans is not None:
            self._spans.close()

    def begin(self, visit: Visit) -> None:
        """The request's head has come."""
        if self._spans is not None and visit.request.path not in _UNRECORDED:
            visit.span = self._spans.begin(visit.request, visit.route)

    def refuse(self, visit: Visit, error: ApiError) -> None:
        """It is answered with an error of our own."""
        self.metrics.rejections.labels(visit.model_name or "", error.code).inc()
        if visit.span is not None:
            visit.span.fail(error.code)

    def wait(self, visit: Visit) -> None:
        """It waits for its turn from now on."""
        visit.asked_s = time.monotonic()
        if visit.span is not None:
            visit.span.wait()

    def admit(self, visit: Visit) -> None:
        """It has its turn."""
        assert visit.model is not None
        self.metrics.of(visit.model.name).queue_s.observe(time.monotonic() - visit.asked_s)
        if visit.span is not None:
            visit.span.admit()

    @contextlib.contextmanager
    def upstream(self, visit: Visit, path: str) -> Iterator[Mapping[str, str] | None]:
        """Within the block the model's process has it; gives the headers by which that joins the trace, if any."""
        assert visit.model is not None
        times = self.metrics.of(visit.model.name)
        visit.answer.on_gap = times.inter_chunk_s.observe
        sent_s = time.monotonic()
        try:
            yield None if visit.span is None else visit.span.send(path)
        finally:
            if visit.span is not None:
                visit.span.receive(visit.answer.status)
            times.upstream_s.observe(time.monotonic() - sent_s)

    def end(self, visit: Visit, failed: int | None) -> None:
        """It is over; `failed` is the status of an error of ours. The client may have left before there was one."""
        if visit.request.path in _UNRECORDED:
            return
        now_s = time.monotonic()
        duration_s = now_s - visit.begin_s
        status = visit.answer.status or failed
        first_s = visit.answer.first_event_s
        ttft_s = None if first_s is None else first_s - visit.begin_s
        model, key = visit.model_name or "", visit.key_name or ""
        self.metrics.requests.labels(model, visit.route, status or "none", key).inc()
        if visit.model is not None:
            times = self.metrics.of(model)
            times.request_s.observe(duration_s)
            if ttft_s is not None:
                times.first_token_s.observe(ttft_s)
            self.metrics.count_tokens(model, key, visit.usage)
            visit.model.recent.note(
                now_s,
                duration_s,
                ttft_s,
                failed=failed is not None or status is None or status >= 400,
                input_tokens=visit.usage.input_tokens,
                output_tokens=visit.usage.output_tokens,
            )
        if visit.span is not None:
            visit.span.end(status, model, key, ttft_s)
        self._audit.write(
            request_id=visit.request.id,
            key=visit.key_name,
            client=visit.request.client,
            method=visit.request.method,
            path=visit.request.path[:200],
            model=visit.model_name,
            status=status,
            error=failed,
            input_tokens=visit.usage.input_tokens,
            output_tokens=visit.usage.output_tokens,
            duration_s=round(duration_s, 4),
        )


def _spans() -> "Spans | None":
    """What makes spans, where the standard variables ask for traces; without them nothing of the SDK is imported."""
    if not tracing.is_on(os.environ):
        return None
    from servers.gateway.spans import Spans
    from servers.telemetry import otlp

    return Spans(otlp.provider("front door"))
