"""The kind of engine `litserve`: a LitAPI, served by LitServe's own server or by the worker host."""

from collections.abc import Iterable

from configs.errors import UserError
from configs.settings import LitServeModel
from servers.apis import registry
from servers.engines.kind import EngineKind, Site, check_source
from servers.engines.litserve.engine import LitServeEngine
from servers.engines.litserve.host.engine import HostEngine


def _make(name: str, settings: LitServeModel, site: Site) -> LitServeEngine:
    engine = HostEngine if settings.serving == "host" else LitServeEngine
    card_file = site.socket.with_suffix(".card.json")
    return engine(name, settings, card_file, site.settings.telemetry.log_level, len(site.settings.models))


def _check_model(settings: LitServeModel) -> Iterable[tuple[str, str]]:
    # An API of a plug-in knows which files it opens.
    yield from check_source(settings.source, needs_config=False, refuses_pickled=settings.api in registry.BUILT_IN)
    try:
        registry.check(settings.api, settings.init, has_source=settings.source is not None)
    except UserError as problem:
        yield "api", str(problem)
    if settings.serving == "host" and settings.api_server_count is not None:
        yield "api_server_count", "the worker host has no HTTP servers; remove it, or set serving: litserve"


LITSERVE = EngineKind(LitServeModel, _make, _check_model, harness="benchmarks.rungs.litserve:HARNESS")
