"""The series of each model: its state and transitions, its queue, its canary."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from servers.metrics.families import family
from servers.models.instance import State
from servers.models.model import Model
from servers.models.residence import UNLOAD_REASONS
from servers.models.trial import SWAP_RESULTS


class ModelCollector(Collector):
    """Reads models and their queues whenever the page is read."""

    def __init__(self, models: Mapping[str, Model], version: str) -> None:
        self._models = models
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """The series of this moment."""
        models = [({"model": name}, model) for name, model in self._models.items()]
        yield family("gauge", "info", "Litport's version", [({"version": self._version}, 1)])
        yield family(
            "gauge",
            "model_info",
            "The model's engine and source",
            [({**label, "engine": m.engine.kind, "source": m.settings.source or ""}, 1) for label, m in models],
        )
        yield family(
            "gauge",
            "model_state",
            "1 for the state that the model is in",
            [({**label, "state": state}, float(model.state is state)) for label, model in models for state in State],
        )
        yield family(
            "gauge",
            "model_required",
            "1 where the platform is only ready with this model",
            [(label, float(model.settings.required)) for label, model in models],
        )
        yield family(
            "counter",
            "model_transitions",
            "How often the model entered a state",
            [({**label, "state": state}, model.transitions[state]) for label, model in models for state in State],
        )
        yield family(
            "counter",
            "model_restarts",
            "Restarts after a failure",
            [(label, model.restarts) for label, model in models],
        )
        yield family(
            "gauge",
            "model_awaits_load",
            "1 while requests to the model wait for its load",
            [(label, float(not model.residence.is_open)) for label, model in models],
        )
        yield family(
            "counter",
            "model_loads",
            "Loads on demand, by how they ended",
            [({**label, "result": end}, m.residence.loads[end]) for label, m in models for end in ("ok", "failed")],
        )
        yield family(
            "counter",
            "model_unloads",
            "Unloads, by what they were for",
            [({**label, "reason": why}, m.residence.unloads[why]) for label, m in models for why in UNLOAD_REASONS],
        )
        yield family(
            "counter",
            "swaps",
            "New versions of the model, by what became of them",
            [({**label, "result": end}, model.swaps[end]) for label, model in models for end in SWAP_RESULTS],
        )
        yield family(
            "gauge",
            "model_start_seconds",
            "How long each phase of the last start took",
            [({**label, "phase": phase}, s) for label, model in models for phase, s in model.choose().phases_s.items()],
        )
        yield family(
            "gauge",
            "model_equality",
            "How near the answers of the variant came to those of eager float32, 1 for the same",
            [
                ({**label, "variant": proof.variant, "precision": proof.precision, "figure": figure}, value)
                for label, model in models
                if (card := model.choose().card) and (proof := card.equality)
                for figure, value in (("cosine", proof.cosine), ("top1", proof.top1))
            ],
        )
        yield family(
            "counter",
            "canaries",
            "Questions to a model at rest, by how they ended",
            [({**label, "result": end}, model.canaries[end]) for label, model in models for end in ("ok", "failed")],
        )
        canary = SummaryMetricFamily(
            "litport_canary_duration_seconds", "How long a model at rest took to answer", labels=["model"]
        )
        for label, model in models:
            canary.add_metric([label["model"]], model.canaries["ok"], model.canary_s)
        yield canary
        for name, help_text, values in (
            ("requests_running", "Requests that the model works on", [m.admission.running for _, m in models]),
            ("requests_waiting", "Requests that wait for their turn", [m.admission.waiting for _, m in models]),
            ("requests_running_max", "Most that run at a time", [m.max_running for _, m in models]),
            ("requests_waiting_max", "Most that wait at a time", [m.max_waiting for _, m in models]),
        ):
            labels = [label for label, _ in models]
            yield family("gauge", name, help_text, list(zip(labels, values, strict=True)))
