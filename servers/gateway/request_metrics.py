"""The metrics of requests: how many, how long each part of them took, and their tokens.

No label has a value that a client may choose freely: models, routes, names of keys and codes of errors come from lists
that the settings or the code limit.
"""

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics

from servers.gateway.histogram import Histogram
from servers.gateway.usage import Usage

disable_created_metrics()  # type: ignore[no-untyped-call] # one more series for each counter

# From a rejected request to a long generation.
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class ModelTimes:
    """The histograms of one model, in seconds; stored, because a look-up costs more than an observation."""

    def __init__(self, metrics: "RequestMetrics", model: str) -> None:
        self.queue_s = metrics.queue_s.of(model)
        self.request_s = metrics.request_s.of(model)
        self.upstream_s = metrics.upstream_s.of(model)
        self.first_token_s = metrics.first_token_s.of(model)
        self.inter_chunk_s = metrics.inter_chunk_s.of(model)


class RequestMetrics:
    """The series, in a registry of their own. The label of an unknown model is ""."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._times: dict[str, ModelTimes] = {}
        self._counts: dict[tuple[str, str, str, str], Counter] = {}
        ProcessCollector(registry=self.registry)
        self.requests = self._counter(
            "requests",
            "Requests, by the status of their answer (none: the client left before)",
            "route",
            "status",
            "key",
        )
        self.rejections = self._counter(
            "rejections", "Requests that the front door itself refused or failed, by the error's code", "code"
        )
        self.fallbacks = self._counter(
            "fallbacks", "Requests that another model got, as this one was not ready or had no room", "to"
        )
        self.tokens = self._counter("tokens", "Tokens, as the answers' usage says", "direction", "key")
        self.cut_answers = self._counter("cut_answers", "Answers that the end of the context cut before max_tokens did")
        self.queue_s = self._histogram("queue_duration", "Waiting at the front door for the model to have room")
        self.request_s = self._histogram("request_duration", "From the request's head to the end of the answer")
        self.upstream_s = self._histogram(
            "upstream_duration", "The part of it from sending the request to the model's process to its answer's end"
        )
        self.first_token_s = self._histogram(
            "time_to_first_token", "From the request's head to the first event of an event stream"
        )
        self.inter_chunk_s = self._histogram("inter_chunk_duration", "From one chunk of an event stream to the next")

    def of(self, model: str) -> ModelTimes:
        """The histograms of this model."""
        if model not in self._times:
            self._times[model] = ModelTimes(self, model)
        return self._times[model]

    def count(self, model: str, route: str, status: str, key: str) -> None:
        """One request more; the series is stored, because its look-up costs more than the count."""
        labels = (model, route, status, key)
        try:
            series = self._counts[labels]
        except KeyError:
            series = self._counts[labels] = self.requests.labels(*labels)
        series.inc()

    def forget(self, model: str) -> None:
        """Drop the series of this model."""
        self._times.pop(model, None)
        self._counts.clear()
        for counter in (self.requests, self.rejections, self.fallbacks, self.tokens, self.cut_answers):
            counter.remove_by_labels({"model": model})
        for histogram in (self.queue_s, self.request_s, self.upstream_s, self.first_token_s, self.inter_chunk_s):
            histogram.forget(model)

    def count_tokens(self, model: str, key: str, usage: Usage) -> None:
        """Add the tokens that an answer names; those that it does not name are not counted."""
        for direction, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count is not None:
                self.tokens.labels(model, direction, key).inc(count)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"litport_{name}", help_text, ["model", *labels], registry=self.registry)

    def _histogram(self, name: str, help_text: str) -> Histogram:
        histogram = Histogram(f"litport_{name}_seconds", help_text, _BUCKETS_S)
        self.registry.register(histogram)
        return histogram
