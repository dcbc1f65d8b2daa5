"""A recipe as the manifest of a Ray cluster that has room for it: the RayCluster that KubeRay makes Pods from."""

import math
from importlib import resources
from string import Template

from configs.loading import LoadedSettings
from configs.model import Autoscaling
from configs.settings import ModelSettings
from servers.cluster.application import gpus_of, models_of

_RAY = "2.60.0"
# Of a Pod whose models do not say what they take, and what Ray's own processes and the cache of files have beside it.
_MEMORY_BYTES, _MORE_BYTES = 8 * 2**30, 2 * 2**30
# From the end of the drain to the end of the Pod.
_END_S = 25


def manifest(loaded: LoadedSettings) -> str:
    """The RayCluster as YAML: a Pod for each replica, all as large as the largest replica of the recipe.

    The name, the Secrets and the store of the head are those of `docker/kubernetes/ray`.
    """
    models = list(models_of(loaded.settings).values())
    gpus = math.ceil(max(gpus_of(model) for model in models))
    memory_bytes = max(model.resources.memory_bytes or _MEMORY_BYTES for model in models)
    text = (resources.files(__package__) / "raycluster.yaml").read_text(encoding="utf-8")
    return Template(text).substitute(
        ray=_RAY,
        pods=sum(_most_replicas(model) for model in models),
        image="cuda-ray" if gpus else "cpu-ray",
        cpus=f"{max(model.resources.cpus for model in models):g}",
        memory=_quantity(memory_bytes),
        limit=_quantity(memory_bytes + _MORE_BYTES),
        gpus=f', nvidia.com/gpu: "{gpus}"' if gpus else "",
        grace=math.ceil(loaded.settings.server.drain_timeout_s) + _END_S,
    )


def _most_replicas(model: ModelSettings) -> int:
    return model.replicas.max if isinstance(model.replicas, Autoscaling) else model.replica_count


def _quantity(size_bytes: int) -> str:
    """As Kubernetes writes it, rounded up."""
    mebibytes = math.ceil(size_bytes / 2**20)
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"
