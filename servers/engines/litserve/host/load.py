"""The LitAPI of a model, made and checked as LitServe would: `HostSpec` says which, with what settings."""

import inspect
from dataclasses import dataclass
from typing import Any

from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop

from configs.errors import UserError
from servers.engines.litserve.api import ApiSpec, construct_api


@dataclass(frozen=True, kw_only=True)
class HostSpec(ApiSpec):
    """What to serve, and how the host serves it. Worker number N listens on `uds` with `.N` behind it."""

    max_restarts: int = 5
    start_timeout_s: float = 900.0


def construct(spec: HostSpec) -> Any:
    """The LitAPI, checked as LitServe would. Raises UserError, also for one that the host cannot run."""
    api = construct_api(spec)
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
