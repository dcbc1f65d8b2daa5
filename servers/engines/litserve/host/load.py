"""The LitAPI of a model, checked as LitServe would, and whether the host can run it."""

from typing import Any

from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop
from litserve.specs.openai import OpenAISpec
from litserve.specs.openai_embedding import OpenAIEmbeddingSpec

from servers.engines.litserve.api import ApiSpec, construct_api


def construct(spec: ApiSpec) -> Any:
    """The LitAPI, ready for its setup. Raises as `construct_api` and `prepare` do."""
    return prepare(construct_api(spec), spec)


def prepare(api: Any, spec: ApiSpec) -> Any:
    """The same API, ready for its setup. LitServe's checks raise ValueError."""
    api.request_timeout = 30.0 if spec.timeout is None else spec.timeout
    api.pre_setup()
    api.loop.pre_setup(api)  # of what must be a generator
    return api


def unsupported(api: Any) -> str | None:
    """Why the host cannot run this API, if so; LitServe's own server can."""
    if type(api.loop) not in (BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop):
        return f"its loop {type(api.loop).__name__} is not LitServe's"
    if api.mcp is not None:
        return "it is an MCP tool"
    if api.spec is not None and not isinstance(api.spec, OpenAISpec | OpenAIEmbeddingSpec):
        return f"its spec {type(api.spec).__name__} is not LitServe's"
    return None
