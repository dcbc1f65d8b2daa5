"""The service of BentoML for `benchmarks.experiments.peers`, which BentoML's own processes import.

PEER has the arguments of `peer_servers.Model` as JSON, and paths of packages that its environment lacks.
"""

import json
import os
import sys
from typing import Any

import bentoml

_PEER: dict[str, Any] = json.loads(os.environ["PEER"])
sys.path.extend(_PEER["paths"])


@bentoml.service(workers=_PEER["workers"], traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Peer:
    """JSON bodies in, JSON out; each worker makes batches of its own."""

    def __init__(self) -> None:
        from benchmarks.experiments.peer_servers import Model

        self._model = Model(_PEER["kind"], _PEER["folder"], _PEER["batch"], _PEER["variant"])

    @bentoml.api(batchable=True, max_batch_size=_PEER["batch"], max_latency_ms=60_000, route="/predict")  # type: ignore[untyped-decorator]
    def predict(self, bodies: list[str]) -> list[Any]:
        """The answers, in the order of the bodies."""
        return self._model.answer([body.encode() for body in bodies])
