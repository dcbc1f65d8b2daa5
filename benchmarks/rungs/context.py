"""What the rungs of a ladder are made of: the recipe's settings, the model's files, and the helpers that start servers.

The rungs of a ladder serve the same weights with the same arguments; they differ in what stands around the model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.analysis.breakdown import RowReader
from benchmarks.analysis.layer import Layer
from benchmarks.load.request import Endpoint, endpoint_of
from benchmarks.load.workload import Item
from benchmarks.rungs import series
from benchmarks.rungs.bare.rung import BareRung
from benchmarks.rungs.cluster import ClusterRung
from benchmarks.rungs.process import free_port
from benchmarks.rungs.server.rung import ServerRung
from configs.loading import LoadedSettings
from configs.settings import LitportSettings
from servers.cluster.application import applications_of
from servers.engines import allocator
from servers.processes.interpreter import module_argv
from servers.processes.reaper import Reaper


@dataclass(frozen=True)
class RungContext:
    """The model `name` of `settings`, whose files lie in `model_dir`; processes write logs into `folder`.

    `row_readers` are those of all engines; `reaper` ends the rungs' processes should the harness be killed; `sample`
    finds the best batch size of a bare model.
    """

    settings: LitportSettings
    name: str
    model_dir: Path | None
    folder: Path
    row_readers: Sequence[RowReader] = ()
    reaper: Reaper | None = None
    sample: Sequence[Item] = ()

    @property
    def model(self) -> Any:
        """The model's settings, of the class that its engine has."""
        return self.settings.models[self.name]

    def bare(
        self, rung: str, spec: Mapping[str, Any], layers: Mapping[str, Layer], environ: Mapping[str, str] | None = None
    ) -> BareRung:
        """The model without a server, as `benchmarks.rungs.bare` loads `spec`; by default with Litport's allocator."""
        environ = allocator.environ() if environ is None else environ
        return BareRung(rung, spec, environ, self._log(rung), layers, self.row_readers, self.sample, reaper=self.reaper)

    def server(
        self, rung: str, argv: Sequence[str], port: int, endpoint: Endpoint, environ: Mapping[str, str] | None = None
    ) -> ServerRung:
        """A server that `argv` starts on `port` of loopback, with its series at /metrics."""
        return self._server(rung, f"http://127.0.0.1:{port}", endpoint, (argv, environ or {}))

    def naive_server(self, rung: str, spec: Mapping[str, Any], endpoint: Endpoint) -> ServerRung:
        """FastAPI around the model, without queue or batches, with Litport's allocator."""
        port = free_port()
        argv = self.spec_argv("benchmarks.rungs.server.naive", rung, spec, port)
        server = self.server(rung, argv, port, endpoint, allocator.environ())
        server.batch_size = 1  # one request after the other
        return server

    def url(self, rung: str, endpoint: Endpoint, workload: str) -> ServerRung:
        """Somebody else's server, whose URL is the rung's name; `endpoint` is where a URL without a path leads to.

        Raises UserError for a URL whose route does not take this kind of workload.
        """
        names_route = urlsplit(rung).path.strip("/") != ""
        address, named_endpoint = endpoint_of(rung, workload if names_route else None)
        return self._server(rung, address, named_endpoint if names_route else endpoint, None)

    def litport(self, endpoint: Endpoint, overrides: Mapping[str, Any]) -> ServerRung:
        """The model through Litport; `overrides` change its settings, such as `args.max-num-seqs`."""
        return self._litport("litport", "serve", endpoint, overrides)[0]

    def gateway(self, rung: str, endpoint: Endpoint, replicas: int | None) -> ClusterRung:
        """The model on Ray through Litport's gateway; by default as many replicas as the recipe has."""
        overrides = {} if replicas is None else {"replicas": replicas}
        server, recipe = self._litport(rung, "gateway", endpoint, overrides)
        settings = LitportSettings.from_layers([recipe])
        (application,) = applications_of(LoadedSettings(settings, {}))
        return ClusterRung(server, self.settings.cluster, application)

    def ingress(self, rung: str, endpoint: Endpoint, application: Mapping[str, Any]) -> ClusterRung:
        """An application of Ray Serve through Ray's own HTTP, which is open on loopback of each node."""
        port = free_port()
        server = self._server(rung, f"http://127.0.0.1:{port}", endpoint, None)
        options = {"proxy_location": "EveryNode", "http_options": {"host": "127.0.0.1", "port": port}}
        return ClusterRung(server, self.settings.cluster, application, options)

    def spec_argv(self, module: str, rung: str, spec: Mapping[str, Any], port: int) -> list[str]:
        """The command of one of our own servers, which reads `spec` and its port from a file."""
        file = self.folder / f"{rung}-{port}.json"
        file.write_text(json.dumps({**spec, "port": port}))
        return module_argv(module, str(file))

    def _server(
        self,
        rung: str,
        url: str,
        endpoint: Endpoint,
        command: tuple[Sequence[str], Mapping[str, str]] | None,
    ) -> ServerRung:
        return ServerRung(
            rung,
            url,
            endpoint,
            self.name,
            self._log(rung),
            command,
            start_timeout_s=self.model.start_timeout_s,
            read_series=lambda: (series.read(f"{url}/metrics"), None),
            row_readers=self.row_readers,
            reaper=self.reaper,
        )

    def _litport(
        self, rung: str, command: str, endpoint: Endpoint, overrides: Mapping[str, Any]
    ) -> tuple[ServerRung, dict[str, Any]]:
        """A command of Litport's as a server, and its recipe."""
        port, metrics_port = free_port(), free_port()
        document = self._recipe(port, metrics_port, overrides)
        recipe = self.folder / f"litport-{port}.yaml"
        recipe.write_text(json.dumps(document))  # YAML reads JSON
        server = self.server(rung, module_argv("litport", command, str(recipe), "--auth.api_keys=[]"), port, endpoint)
        server.ready_path = "/ready"
        server.read_series = lambda: _read_litport(metrics_port)
        return server, document

    def _recipe(self, port: int, metrics_port: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
        model = self.model.model_dump(mode="json", exclude_unset=True)
        for key, value in overrides.items():
            section, _, option = key.rpartition(".")
            (model.setdefault(section, {}) if section else model)[option] = value
        model.setdefault("canary_interval_s", None)  # it would be counted as one of our requests
        model.setdefault("embeds_token_ids", True)  # a workload's ids are the model's own
        return {
            "server": {"port": port, "cache_dir": str(self.settings.server.cache_dir)},
            "models": {self.name: model},
            # Rungs have no keys, whose limits alone need the store; a secret would stand masked in the file.
            "limits": self.settings.limits.model_dump(mode="json", exclude_unset=True, exclude={"redis_url"}),
            "cluster": self.settings.cluster.model_dump(mode="json", exclude_unset=True),
            "telemetry": {"metrics_port": metrics_port, "log_level": "warning", "log_format": "text"},
        }

    def _log(self, rung: str) -> Path:
        return self.folder / f"{rung.replace('/', '_').replace(':', '_')}.log"


def _read_litport(metrics_port: int) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """The series of the model's process and of the front door, which stand on one page."""
    page = series.read(f"http://127.0.0.1:{metrics_port}/metrics")
    return page, page
