"""The kind of engine `litserve`: a LitAPI, served by the worker host or by LitServe's own server."""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterable

from configs.errors import UserError
from configs.remote import RemoteModel
from configs.settings import LitServeModel, ModelSettings
from servers.apis import registry, runtimes, session_options
from servers.apis.export_hook import HOOK
from servers.apis.exports import exports_dir
from servers.apis.reference import MCP_TOOL
from servers.engines.kind import EngineKind, Site, check_source
from servers.engines.litserve.engine import LitServeEngine
from servers.engines.litserve.rules import SpecRules


def _make(name: str, settings: LitServeModel, site: Site) -> LitServeEngine:
    if isinstance(settings.devices, list) and isinstance(settings.devices[0], list):
        settings = settings.model_copy(update={"devices": settings.devices[site.number]})
    card_file = site.socket.with_suffix(".card.json")
    return LitServeEngine(
        name,
        settings,
        card_file,
        site.settings.telemetry.log_level,
        sum(model.replica_count for model in site.settings.models.values() if _computes_here(model)),
        exports=exports_dir(site.settings.server.cache_dir, name),
    )


def _computes_here(model: ModelSettings) -> bool:
    return not model.instances and not isinstance(model, RemoteModel)


def _check_model(settings: LitServeModel) -> Iterable[tuple[str, str]]:
    # An API of a plug-in knows which files it opens.
    yield from check_source(settings.source, needs_config=False, refuses_pickled=settings.api in registry.BUILT_IN)
    try:
        registry.check(settings.api, settings.init, has_source=settings.source is not None)
    except UserError as problem:
        yield "api", str(problem)
        return
    missing = registry.missing_settings(settings.api)
    if "stream" in missing and not settings.stream and not {"stream", "spec"} & settings.init.keys():
        yield "stream", missing["stream"]
    if "enable_async" in missing and "enable_async" not in settings.init:
        yield "api", missing["enable_async"]
    yield from _check_variant(settings)
    for field in ("callbacks", "loggers"):
        for name in getattr(settings, field):
            try:
                registry.check(name, {}, has_source=False)
            except UserError as problem:
                yield field, str(problem)
    obstacle = registry.obstacle(settings.api)
    if obstacle == MCP_TOOL and importlib.util.find_spec("fastmcp") is None:
        yield "api", f"{settings.api!r} is an MCP tool, which needs fastmcp; Litport offers no tools: leave `mcp` out"
    if settings.serving == "host" and obstacle:
        yield "serving", f"the worker host cannot run api {settings.api!r}: {obstacle}; remove `serving: host`"
    if settings.serving != "litserve" and settings.api_server_count is not None:
        yield "api_server_count", "the worker host has no HTTP servers; remove it, or set serving: litserve"


def _check_variant(settings: LitServeModel) -> Iterable[tuple[str, str]]:
    runtime, precision = settings.runtime, settings.precision
    names = " and ".join(registry.PROVED)
    if runtime in ("eager", "auto") and settings.runtime_options:
        yield "runtime_options", f"expected none with runtime: {runtime}, they are those of onnxruntime or openvino"
    if runtime == "eager":
        if precision != "float32" and settings.api not in registry.PROVED:
            yield "precision", f"expected float32: only the APIs {names} take {precision} without another runtime"
        elif precision == "float16" and settings.accelerator == "cpu":
            yield "precision", f"expected float32 or bfloat16, got float16: {runtimes.NO_FLOAT16}"
        return
    if settings.api not in registry.PROVED and not registry.has_method(settings.api, HOOK):
        yield "runtime", f"expected eager: api {settings.api!r} has no {HOOK}(), see docs/plugins.md"
    if runtime == "auto":
        if precision != "float32" and settings.api not in registry.PROVED:
            yield "precision", f"expected float32 with runtime: auto: only the APIs {names} take {precision} from torch"
        return
    if precision not in runtimes.PRECISIONS[runtime]:
        yield "precision", f"expected float32: {runtime} does not compute in {precision} on a CPU"
    if reason := runtimes.problem(runtime):
        yield "runtime", reason
    elif settings.runtime_options:
        for name, reason in session_options.problems(runtime, settings.runtime_options).items():
            yield f"runtime_options.{name}".rstrip("."), reason


def _describe(settings: LitServeModel) -> str:
    """How the API will be served, as far as its source shows it, and what has no effect."""
    count = settings.devices
    if settings.accelerator == "cuda":  # a recipe for another machine is a valid one
        note = "" if _has_gpu() else "; accelerator=cuda needs a GPU, and nvidia-smi names none on this machine"
    elif count not in (None, "auto", 1, [0]) and (settings.accelerator == "cpu" or not _has_gpu()):
        note = f"; devices={count} has no effect on a CPU"
    else:
        note = ""
    return _describe_serving(settings) + note


def _describe_serving(settings: LitServeModel) -> str:
    lacks = "no cancelling, no spans of workers, no series of their own (see docs/plugins.md)"
    if settings.serving == "litserve":
        return f"LitServe's own server: {lacks}"
    if obstacle := registry.obstacle(settings.api):
        return f"LitServe's own server, since {obstacle}: {lacks}"
    return "the worker host" if settings.serving else "the worker host, as far as its source shows"


def _has_gpu() -> bool:
    """What LitServe looks at as well."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.stdout.startswith(b"GPU") or b"\nGPU" in listing.stdout


LITSERVE = EngineKind(
    LitServeModel,
    _make,
    _check_model,
    describe_model=_describe,
    harness="benchmarks.rungs.litserve:HARNESS",
    optimize="servers.engines.litserve.optimize:optimize",
    rules=lambda _, __, card: SpecRules(card.openapi) if card.routes else None,
)
