"""The registry of engines: from the name in the settings to the kind of engine."""

import typing
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points

from configs import engines
from configs.cluster import read_secret
from configs.errors import UserError
from configs.settings import LitportSettings, ModelSettings
from servers.engines.base import Engine
from servers.engines.kind import EngineKind, Site
from servers.engines.litserve.kind import LITSERVE
from servers.engines.llamacpp.engine import LLAMACPP
from servers.engines.remote.engine import REMOTE
from servers.engines.replica import awaited
from servers.engines.replica.awaited import AwaitedReplica, News
from servers.engines.replica.engine import ReplicaEngine
from servers.engines.vllm.engine import VLLM

ENTRY_POINT_GROUP = "litport.engines"

_KINDS: dict[str, EngineKind] = {"vllm": VLLM, "litserve": LITSERVE, "llamacpp": LLAMACPP, "remote": REMOTE}


def register(kind: EngineKind) -> None:
    """Offer a kind of engine; call it before the settings are loaded."""
    (name,) = typing.get_args(kind.settings.model_fields["engine"].annotation)
    engines.register(kind.settings)
    _KINDS[name] = kind


def register_installed() -> None:
    """Offer the engines that installed packages bring. Raises UserError for one that cannot be imported."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            kind = point.load()
        except Exception as error:  # whatever a package raises at its import
            raise UserError(f"engine {point.name!r} ({point.value}): {type(error).__name__}: {error}") from error
        if not isinstance(kind, EngineKind):
            raise UserError(f"engine {point.name!r}: expected an EngineKind at {point.value}, got {kind!r}")
        register(kind)


def kind_of(settings: ModelSettings) -> EngineKind:
    """The kind of engine that these settings of a model name."""
    return _KINDS[settings.engine]


def addresses_of(settings: ModelSettings) -> Sequence[str]:
    """Where the instances of a model are that is not started here; none for one that is."""
    return kind_of(settings).addresses(settings) or settings.instances


def has_replicas(settings: ModelSettings) -> bool:
    """Whether replicas of Litport serve the model, and no process here or server of another kind."""
    return bool(settings.instances) and not kind_of(settings).addresses(settings)


def make_engine(name: str, settings: ModelSettings, site: Site) -> Engine:
    """The engine of one instance. Raises UserError where a replica needs a secret and there is none."""
    kind = kind_of(settings)
    if site.address is None or not has_replicas(settings):
        return kind.make(name, settings, site)
    return replica_engine(name, settings, site.address, read_secret(site.settings.cluster))


def replica_engine(name: str, settings: ModelSettings, address: str, secret: str) -> ReplicaEngine:
    """The engine of an instance at a replica, which may not be there yet."""
    rules = partial(kind_of(settings).rules, name, settings)
    if address == awaited.ADDRESS:
        return AwaitedReplica(name, settings.engine, address, secret, rules, News())
    return ReplicaEngine(name, settings.engine, address, secret, rules)


def optimize(settings: LitportSettings, name: str, runtime: str | None, precision: str | None) -> None:
    """Prepare the model `name` ahead of its start, as its engine does it. Raises UserError."""
    models = {name: model for name, model in settings.models.items() if kind_of(model).optimize}
    if name not in models:
        raise UserError(f"expected a model that can be prepared ({', '.join(models) or 'there is none'}), got {name}")
    module, _, function = (kind_of(models[name]).optimize or "").partition(":")
    getattr(import_module(module), function)(settings, name, runtime, precision)


def kinds() -> tuple[EngineKind, ...]:
    """All kinds of engines."""
    return tuple(_KINDS.values())
