"""A recipe as applications of Ray Serve, one for each model, so that each is deployed, changed and fails by itself.

Ray's dashboard shows what an application is made from, so nothing secret may be in it. The rest of a recipe, such as
keys and limits, is the gateway's.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from configs.errors import UserError
from configs.layer import SECRET_ORIGIN
from configs.loading import LoadedSettings
from configs.model import Autoscaling
from configs.paths import absolute
from configs.settings import LitportSettings, ModelSettings
from configs.shape import TreePath, sounds_secret
from servers.cluster import scaling
from servers.cluster.deployment import DEPLOYMENT, HANDOVER_S
from servers.engines import registry
from servers.engines.replica import awaited

IMPORT_PATH = "servers.cluster.deployment:build"

# What the gateway decides, or this module.
_GATEWAY_SETTINGS = frozenset({"checks", "instances", "recorded_requests", "replicas", "resources"})
_SECTIONS = {"server": {"cache_dir", "drain_timeout_s"}, "telemetry": {"log_level", "log_format"}}
_CLUSTER_SETTINGS = {"secret_file", "replica_port"}
# How long the model's processes may take to end after the last request.
_END_S = 15.0
_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 1.0, 2.0


def application_name(model: str) -> str:
    """The name of a model's application, which is part of the names of files."""
    return f"litport-{model.replace('/', '--')}"


def models_of(settings: LitportSettings) -> dict[str, ModelSettings]:
    """The models that run on Ray: those that `litport serve` would start itself."""
    return {name: model for name, model in settings.models.items() if not registry.addresses_of(model)}


def gpus_of(model: ModelSettings) -> float:
    """The GPUs of each replica."""
    gpus = model.resources.gpus
    return registry.kind_of(model).gpus(model) if gpus is None else gpus


def applications_of(loaded: LoadedSettings) -> list[dict[str, Any]]:
    """The applications (ServeApplicationSchema). Raises UserError for what must not be sent, or where none is left."""
    models = models_of(loaded.settings)
    if not models:
        raise UserError("expected a recipe with one model or more that Litport starts itself, got none")
    return [_application(loaded, name, model) for name, model in models.items()]


def through_ray(loaded: LoadedSettings) -> LoadedSettings:
    """The settings of a gateway: its models are where Ray has put their replicas."""
    elsewhere = {"instances": [awaited.ADDRESS], "replicas": 1, "load": "at_start", "idle_unload_s": None}
    models = {name: model.model_copy(update=elsewhere) for name, model in models_of(loaded.settings).items()}
    settings = loaded.settings.model_copy(update={"models": {**loaded.settings.models, **models}})
    return dataclasses.replace(loaded, settings=settings)


def _application(loaded: LoadedSettings, name: str, model: ModelSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": model.resources.cpus, "num_gpus": gpus_of(model)}
    if model.resources.memory_bytes is not None:
        options["memory"] = model.resources.memory_bytes
    return {
        "name": application_name(name),
        "route_prefix": None,
        "import_path": IMPORT_PATH,
        "args": {"name": name, "recipe": _recipe(loaded, name, model)},
        "deployments": [
            {
                "name": DEPLOYMENT,
                **_count(model),
                "health_check_period_s": _HEALTH_PERIOD_S,
                "health_check_timeout_s": _HEALTH_TIMEOUT_S,
                "max_surge_percent": 100,  # a new version is ready before the old one ends
                "graceful_shutdown_wait_loop_s": 0.1,  # no request comes through Ray
                "graceful_shutdown_timeout_s": HANDOVER_S + loaded.settings.server.drain_timeout_s + _END_S,
                "ray_actor_options": options,
            }
        ],
    }


def _count(model: ModelSettings) -> dict[str, Any]:
    """How many replicas, as Ray Serve takes it.

    A range in the place of a number is another version to Ray Serve, since it has a policy. So it starts new processes,
    which matters: those that were started for a number report no load.
    """
    if isinstance(model.replicas, Autoscaling):
        return {"autoscaling_config": scaling.config(model.replicas)}
    return {"num_replicas": model.replicas}


def _recipe(loaded: LoadedSettings, name: str, model: ModelSettings) -> str:
    """What a replica needs of the recipe, as text. Raises UserError for a secret in it."""
    settings = loaded.settings
    sections = settings.model_dump(mode="json", exclude_unset=True, include={*_SECTIONS, "cluster"})
    document = {
        section: {key: value for key, value in values.items() if key in _SECTIONS.get(section, _CLUSTER_SETTINGS)}
        for section, values in sections.items()
    }
    document = {section: values for section, values in document.items() if values}
    if settings.cluster.secret_file is not None:
        document["cluster"]["secret_file"] = str(settings.cluster.secret_file.absolute())
    model_document = model.model_dump(mode="json", exclude_unset=True, exclude=set(_GATEWAY_SETTINGS | model.in_place))
    if not isinstance(model_document.get("devices"), int | str):
        model_document.pop("devices", None)  # Ray chooses them
    for path, value in _leaves(model_document, ("models", name)):
        if value is not None and (sounds_secret(path[-1]) or _is_from_secret(loaded, path)):
            raise UserError(
                f"{'.'.join(path)}: expected no secret, since Ray's dashboard shows what is deployed; set it in the "
                "environment of the nodes, or read it from a file there"
            )
    return json.dumps({**document, "models": {name: absolute(model_document)}}, sort_keys=True)


def _is_from_secret(loaded: LoadedSettings, path: TreePath) -> bool:
    above = (path[:length] for length in range(len(path), 0, -1))
    return any(loaded.origins.get(part, "").startswith(SECRET_ORIGIN) for part in above)


def _leaves(value: Any, path: TreePath) -> Iterator[tuple[TreePath, Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, (*path, str(key)))
    else:
        yield path, value
