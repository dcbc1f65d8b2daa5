"""The settings of a language model that llama.cpp's own server serves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from configs.model import Keys, ModelSettings, Text
from configs.vllm import dashed

_OWNED = {
    **dict.fromkeys(("model", "model-url", "hf-repo", "hf-file"), "set source"),
    "alias": "name the model by its key under models",
    "host": "every model listens on a socket of its own",
    "port": "set server.port",
    **dict.fromkeys(("api-key", "api-key-file"), "set auth.api_keys"),
    **dict.fromkeys(("ssl-key-file", "ssl-cert-file"), "put a proxy with TLS in front of the front door"),
    "api-prefix": "set it in the proxy in front of the front door",
}


def _option(key: str) -> str:
    name = dashed(key)
    if advice := _OWNED.get(name):
        raise ValueError(f"Litport sets this option of llama.cpp itself; {advice}")
    if len(name) < 2:
        raise ValueError("expected the long name of an option, such as ctx-size")
    return name


class LlamaCppModel(ModelSettings):
    """A language model in a GGUF file, served by llama.cpp's own server."""

    rungs = ("llamacpp", "litport")
    converts_gguf = False
    engine: Literal["llamacpp"] = Field(description="What runs the model.")
    source: Text = Field(description="A GGUF file, `./model.gguf`; it is used where it is, and not converted.")
    args: Annotated[dict[Annotated[str, AfterValidator(_option)], JsonValue], Keys(dashed)] = Field(
        {}, description="llama.cpp's own options by their long names without the dashes, such as `ctx-size: 8192`."
    )
