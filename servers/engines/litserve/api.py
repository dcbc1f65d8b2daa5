"""The LitAPI that a process serves: its specification, its construction, and the card that describes it."""

import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from configs.errors import UserError
from servers.apis import equality, export_hook, registry
from servers.apis.equality import Equality, Variant
from servers.engines.litserve.refusals import refuse, refuse_class

EXIT_NOT_LOADED = 3
Serving = Literal["host", "litserve"]
OUT_OF_MEMORY = "the model's device is out of memory; try again later, or send less at a time"
"""What a client is told with status 503: another moment, or a smaller request, may find room."""


@dataclass(frozen=True, kw_only=True)
class ApiSpec:
    """What to serve, as the parent wrote it. None means LitServe's own default; times are in seconds.

    `serving` None is the worker host, or LitServe's own server for what the host cannot run. `uds` is the socket of
    LitServe's server; worker number N of the host listens on it with `.N` behind. `variant` has the fields of
    `servers.apis.equality.Variant`. `log_level` and `num_api_servers` are
    for LitServe's server only, `max_restarts`, `start_timeout_s` and `isolate_failures` for the host.
    """

    name: str
    api: str
    uds: str
    card: str
    serving: Serving | None = None
    model_dir: str | None = None
    variant: dict[str, Any] | None = None
    init: dict[str, Any] | None = None
    accelerator: str | None = None
    devices: int | str | list[int] | None = None
    workers_per_device: int | None = None
    max_batch_size: int | None = None
    batch_timeout: float | None = None
    stream: bool | None = None
    timeout: float | None = None
    traces: bool = False
    log_level: str = "warning"
    num_api_servers: int | None = None
    callbacks: list[str] = field(default_factory=list)
    loggers: list[str] = field(default_factory=list)
    max_restarts: int = 5
    start_timeout_s: float = 900.0
    isolate_failures: bool = True


def construct_api(spec: ApiSpec) -> Any:
    """The LitAPI, with the settings that its constructor names as arguments and the others set on the object.

    Raises UserError; what the plug-in's module or constructor raises comes through.
    """
    api_class = registry.load(spec.api)
    refuse_class(api_class, spec.api)
    settings = without_none(max_batch_size=spec.max_batch_size, batch_timeout=spec.batch_timeout, stream=spec.stream)
    names = inspect.signature(api_class.__init__).parameters
    arguments = {name: value for name, value in settings.items() if name in names}
    api = api_class(**without_none(model_dir=spec.model_dir), **{**(spec.init or {}), **arguments})
    if api.spec is not None and spec.stream not in (None, api.spec.stream):
        raise UserError(f"api {spec.api!r}: {type(api.spec).__name__} decides about streaming; remove `stream`")
    for name in settings.keys() - arguments.keys():
        # LitServe reads these, and makes its loop from them, only once the server is built.
        setattr(api, name, settings[name])
    if spec.variant is not None:
        export_hook.attach(api, Variant(**spec.variant))
    refuse(api, spec.api, spec.name)
    return api


def construct_extras(spec: ApiSpec) -> tuple[list[Any], list[Any]]:
    """LitServe's callbacks and loggers of the API. Raises UserError, and what their modules and constructors raise."""
    import litserve

    callbacks = [registry.load_class(name, litserve.Callback)() for name in spec.callbacks]
    return callbacks, [registry.load_class(name, litserve.Logger)() for name in spec.loggers]


def without_none(**options: Any) -> dict[str, Any]:
    """The options that are set; None is LitServe's own default and is not passed on."""
    return {name: value for name, value in options.items() if value is not None}


def write_card(spec: ApiSpec, api: Any, serving: Serving, reason: str | None = None, **more: Any) -> None:
    """Describe the API in the file of the card, so that a reader finds all of it or no file.

    `reason` is why LitServe's server runs it although nobody has asked for that.
    """
    card: Mapping[str, Any] = {
        "serving": serving,
        "reason": reason,
        "api_path": api.api_path,
        "stream": bool(api.stream),
        "max_batch_size": api.max_batch_size,
        "batch_timeout_s": api.batch_timeout or None,
        "is_async": bool(api.enable_async),
        "example": getattr(api, "example_request", None),
        **more,
    }
    file = Path(spec.card)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(card))
    part.replace(file)


def write_equality(spec: ApiSpec, api: Any) -> None:
    """Say beside the card what the API's proof has measured, if it has one; each worker does, before it is ready."""
    if isinstance(measured := getattr(api, "equality", None), Equality):
        equality.write(measured, Path(spec.card))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether torch found no room on the device."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def first_paragraph(error: BaseException) -> str:
    """An error in one line: LitServe explains over many lines, and its first paragraph names the problem."""
    return " ".join(str(error).strip().partition("\n\n")[0].split())


def fail(message: str) -> int:
    """Say in one line why there is nothing to serve; returns the exit status."""
    sys.stderr.write(f"litserve_main: error: {message}\n")
    return EXIT_NOT_LOADED
