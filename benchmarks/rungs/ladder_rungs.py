"""The rungs of a model's ladder, built from the recipe's settings.

Each serves the same weights with the same arguments; what differs is what stands around the model. The names are those
of `bench.rungs`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load.workload import Item
from benchmarks.rungs import scrape
from benchmarks.rungs.base import BareRung, Rung, ServerRung
from benchmarks.rungs.process import free_port
from configs.bench import GENERIC_RUNGS, LLM_RUNGS
from configs.errors import UserError
from configs.settings import LitportSettings, LitServeModel, VllmModel
from servers.engines.litserve.engine import LitServeEngine, api_spec
from servers.engines.vllm.engine import VllmEngine
from servers.processes.interpreter import module_argv
from servers.processes.reaper import Reaper

OwnRung = BareRung | ServerRung
_FORMS = {"embedding": ("embeddings", "/v1/embeddings"), "image_classification": ("image", "")}


class Ladder:
    """Makes the rungs for `name` of `settings`, whose files lie in `model_dir`; processes write logs into `folder`.

    `reaper` ends their processes should the harness be killed.
    """

    def __init__(
        self, settings: LitportSettings, name: str, model_dir: Path | None, folder: Path, reaper: Reaper | None = None
    ) -> None:
        self._settings = settings
        self._name = name
        self._model = settings.models[name]
        self._model_dir = model_dir
        self._folder = folder
        self._reaper = reaper
        self.workload_kind = settings.bench.workload.kind or self._usual_kind()

    def rungs(self, sample: Sequence[Item], names: Sequence[str] = ()) -> list[Rung]:
        """The rungs by name, or all that the model's engine has. Raises UserError for one that it has not."""
        known = LLM_RUNGS if isinstance(self._model, VllmModel) else GENERIC_RUNGS
        chosen = names or self._settings.bench.rungs or known
        for rung in chosen:
            if rung not in known and "://" not in rung:
                raise UserError(
                    f"bench.rungs: expected {', '.join(known)} or a URL for the model {self._name!r}, got {rung}"
                )
        return [self.rung(rung, sample) for rung in chosen]

    def rung(self, rung: str, sample: Sequence[Item], overrides: Mapping[str, Any] | None = None) -> OwnRung:
        """One rung; `overrides` change settings of the model, for the rung that serves it through Litport."""
        if isinstance(self._model, VllmModel):
            made = self._llm_rung(rung, self._model, overrides or {})
        else:
            made = self._generic_rung(rung, self._model, sample, overrides or {})
        made.reaper = self._reaper
        return made

    def _usual_kind(self) -> str:
        if isinstance(self._model, VllmModel):
            return "tokens"
        return {"embedding": "tokens", "image_classification": "images"}.get(self._model.api, "example")

    def _log(self, rung: str) -> Path:
        return self._folder / f"{rung.replace('/', '_').replace(':', '_')}.log"

    def _llm_rung(self, rung: str, model: VllmModel, overrides: Mapping[str, Any]) -> OwnRung:
        assert self._model_dir is not None
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        dtype = str(model.args.get("dtype", "auto"))
        users = self._settings.bench.load.users
        common = {"model_dir": str(self._model_dir), "dtype": dtype}
        match rung:
            case "transformers" | "transformers-batched":
                size = 1 if rung == "transformers" else users
                return BareRung(rung, {**common, "batch_size": size}, {}, self._log(rung))
            case "vllm-offline" | "vllm":
                command = VllmEngine(self._name, model).command(self._model_dir, Path("unused"))
                at = command.argv.index("--uds")
                words = command.argv[:at] + command.argv[at + 2 :]
                if rung == "vllm-offline":
                    spec = {"words": words[words.index("--model") :]}
                    return BareRung(rung, spec, command.environ, self._log(rung))
                argv = [*words, "--host", "127.0.0.1", "--port", str(port)]
                return self._server(rung, url, (argv, command.environ), "completions", "/v1/completions", "events")
            case "fastapi":
                argv = self._spec_argv("naive_server", rung, {**common, "rung_of": "llm", "port": port})
                return self._server(rung, url, (argv, {}), "causal_lm", "/generate", "whole")
            case "litserve":
                batches = {"max_batch_size": users, "batch_timeout": 0.005} if users > 1 else {}
                init = {} if dtype == "auto" else {"dtype": dtype}
                served = {"api": "causal_lm", "model_dir": str(self._model_dir), "init": init, **batches}
                return self._plain_litserve(rung, url, port, served, "causal_lm", "whole")
            case "litport":
                return self._litport(url, port, "completions", "/v1/completions", "events", overrides)
            case _:
                return self._server(rung, rung.rstrip("/"), None, "completions", "/v1/completions", "events")

    def _generic_rung(
        self, rung: str, model: LitServeModel, sample: Sequence[Item], overrides: Mapping[str, Any]
    ) -> OwnRung:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        form, path = _FORMS.get(model.api, ("json", ""))
        arguments = {**model.init, **({"model_dir": str(self._model_dir)} if self._model_dir else {})}
        read_as = "lines" if model.stream else "whole"
        bare = {"api": model.api, "arguments": arguments, "device": _device(model)}
        match rung:
            case "model" | "model-batched":
                size = self._settings.bench.max_batch_size
                return BareRung(rung, {**bare, "batch_size": size}, {}, self._log(rung), sample)
            case "fastapi":
                spec = {**bare, "rung_of": "api", "port": port, "form": form}
                return self._server(
                    rung, url, (self._spec_argv("naive_server", rung, spec), {}), form, "/predict", "whole"
                )
            case "litserve":
                served = api_spec(model, self._model_dir)
                return self._plain_litserve(rung, url, port, served, form, read_as, path or "/predict")
            case "litport":
                return self._litport(url, port, form, path or f"/predict/{self._name}", read_as, overrides)
            case _:
                theirs = rung.rstrip("/")
                return self._server(rung, theirs, None, form, path or f"/predict/{self._name}", read_as)

    def _server(
        self,
        rung: str,
        url: str,
        command: tuple[Sequence[str], Mapping[str, str]] | None,
        form: str,
        path: str,
        read_as: str,
    ) -> ServerRung:
        return ServerRung(
            rung,
            url,
            form,
            path,
            read_as,
            self._name,
            self._log(rung),
            command,
            start_timeout_s=self._model.start_timeout_s,
            series=lambda: (scrape.read(f"{url}/metrics"), None),
        )

    def _plain_litserve(
        self, rung: str, url: str, port: int, served: Mapping[str, Any], form: str, read_as: str, path: str = "/predict"
    ) -> ServerRung:
        metrics = self._folder / f"{rung}-metrics-{port}"
        metrics.mkdir(parents=True)
        spec = {"name": self._name, "uds": "", "card": "", "log_level": "warning", **served, "port": port}
        argv = self._spec_argv("litserve_server", rung, spec)
        model = self._model if isinstance(self._model, LitServeModel) else LitServeModel(engine="litserve", api="echo")
        # What it costs beside Litport should not depend on how many threads each takes.
        own = LitServeEngine(self._name, model, metrics / "unused", "warning").environ()
        environ = {**own, "PROMETHEUS_MULTIPROC_DIR": str(metrics), **model.env}
        return self._server(rung, url, (argv, environ), form, path, read_as)

    def _litport(
        self, url: str, port: int, form: str, path: str, read_as: str, overrides: Mapping[str, Any]
    ) -> ServerRung:
        served = self._model.model_dump(mode="json", exclude_unset=True)
        for key, value in overrides.items():
            section, _, option = key.rpartition(".")
            (served.setdefault(section, {}) if section else served)[option] = value
        served.setdefault("canary_interval_s", None)  # it would be counted as one of our requests
        metrics_port = free_port()
        recipe = self._folder / f"litport-{port}.yaml"
        limits = self._settings.limits.model_dump(mode="json", exclude_unset=True)
        recipe.write_text(  # YAML reads JSON
            json.dumps(
                {
                    "server": {"port": port, "cache_dir": str(self._settings.server.cache_dir)},
                    "models": {self._name: served},
                    "limits": limits,
                    "telemetry": {"metrics_port": metrics_port, "log_level": "warning", "log_format": "text"},
                }
            )
        )
        rung = self._server(
            "litport",
            url,
            (module_argv("litport", "serve", str(recipe), "--auth.api_keys=[]"), {}),
            form,
            path,
            read_as,
        )
        rung.ready_path = "/ready"
        rung.series = lambda: _litport_series(metrics_port)
        return rung

    def _spec_argv(self, module: str, rung: str, spec: Mapping[str, Any]) -> list[str]:
        file = self._folder / f"{rung}-{spec['port']}.json"
        file.write_text(json.dumps(spec))
        return module_argv(f"benchmarks.{module}", str(file))


def _litport_series(metrics_port: int) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What the model's process and the front door have counted, which is one page."""
    series = scrape.read(f"http://127.0.0.1:{metrics_port}/metrics")
    return series, series


def _device(model: LitServeModel) -> str:
    import torch

    if model.accelerator in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return model.accelerator
