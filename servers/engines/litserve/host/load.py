"""The LitAPI of a model, made and checked as LitServe would: `HostSpec` says which, with what settings."""

import inspect
from dataclasses import dataclass
from typing import Any

from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop

from configs.errors import UserError
from servers.apis import registry


@dataclass(frozen=True)
class HostSpec:
    """What to serve, as the parent wrote it. None means LitServe's own default; times are in seconds.

    Worker number N listens on `uds` with `.N` behind it.
    """

    name: str
    api: str
    uds: str
    card: str
    model_dir: str | None = None
    init: dict[str, Any] | None = None
    accelerator: str | None = None
    devices: int | str | list[int] | None = None
    workers_per_device: int | None = None
    max_batch_size: int | None = None
    batch_timeout: float | None = None
    stream: bool | None = None
    timeout: float | None = None
    max_restarts: int = 5
    start_timeout_s: float = 900.0
    traces: bool = False


def construct(spec: HostSpec) -> Any:
    """The LitAPI, with the settings that its constructor names as arguments and the others set on the object."""
    constructor = registry.load(spec.api)
    settings = _set(max_batch_size=spec.max_batch_size, batch_timeout=spec.batch_timeout, stream=spec.stream)
    names = inspect.signature(constructor.__init__).parameters
    arguments = {name: value for name, value in settings.items() if name in names}
    api = constructor(**_set(model_dir=spec.model_dir), **{**(spec.init or {}), **arguments})
    if api.spec is not None and spec.stream not in (None, api.spec.stream):
        raise UserError(f"api {spec.api!r}: {type(api.spec).__name__} decides about streaming; remove `stream`")
    for name in settings.keys() - arguments.keys():
        setattr(api, name, settings[name])
    if reason := unsupported(api):
        raise UserError(f"api {spec.api!r}: {reason}; the worker host cannot run it, `serving: litserve` can")
    api.request_timeout = 30.0 if spec.timeout is None else spec.timeout
    api.pre_setup()
    api.loop.pre_setup(api)  # LitServe's checks of what must be a generator
    return api


def unsupported(api: Any) -> str | None:
    """Why the host cannot run this API, if so; LitServe's own server can."""
    if type(api.loop) not in (BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop):
        return f"its loop {type(api.loop).__name__} is not LitServe's"
    if api.mcp is not None:
        return "it is an MCP tool"
    if api.spec is None and "request" not in inspect.signature(api.decode_request).parameters:
        return "the parameter of decode_request must be called `request`"
    return None


def _set(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
