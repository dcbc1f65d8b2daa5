"""The settings of a model, for either engine.

They are checked before a process starts, so that a mistake shows at once and not after minutes. Of vLLM's own options,
only those that Litport sets itself are errors here; vLLM checks the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, field_validator


@dataclass(frozen=True)
class Keys:
    """How the free keys of a mapping are spelt, so that every source gives an entry the same name."""

    spell: Callable[[str], str]


_LLAMACPP_OWNED = {
    **dict.fromkeys(("model", "model-url", "hf-repo", "hf-file"), "set source"),
    "alias": "name the model by its key under models",
    "host": "every model listens on a socket of its own",
    "port": "set server.port",
    **dict.fromkeys(("api-key", "api-key-file"), "set auth.api_keys"),
    **dict.fromkeys(("ssl-key-file", "ssl-cert-file"), "put a proxy with TLS in front of the front door"),
    "api-prefix": "set it in the proxy in front of the front door",
}


class Section(BaseModel):
    """A part of the tree: unknown keys are errors, values do not change after loading, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def option_name(key: str) -> str:
    """Return a vLLM option as vLLM spells it, without its dashes; raises ValueError for one that Litport sets."""
    name, dot, subkey = key.partition(".")
    name = _dashed(name)
    if advice := _advice_on_owned_option(name):
        raise ValueError(f"Litport sets this option of vLLM itself; {advice}")
    return name + dot + subkey


def _dashed(key: str) -> str:
    return key.removeprefix("--").replace("_", "-")


def _llamacpp_option(key: str) -> str:
    name = _dashed(key)
    if advice := _LLAMACPP_OWNED.get(name):
        raise ValueError(f"Litport sets this option of llama.cpp itself; {advice}")
    if len(name) < 2:
        raise ValueError("expected the long name of an option, such as ctx-size")
    return name


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("expected the name of an environment variable: letters, digits and '_'")
    return name


def _model_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._/-]{1,128}", name) or {"", ".", ".."} & set(name.split("/")):
        raise ValueError(
            "expected a model name of 1 to 128 letters, digits, '.', '_', '-' and '/', with no empty, '.' or '..' part"
        )
    return name


ModelName = Annotated[str, AfterValidator(_model_name)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
SHORTEST_KEY = 16
"""Characters of a caller's key at least; `litport keys new` makes longer ones."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class ModelSettings(Section):
    """What the settings of a model have with any engine; an engine's own class adds a Literal `engine` and the rest.

    `rungs` are the names that `bench.rungs` takes for a model of the engine, the baseline first. `converts_gguf` is
    whether the engine gets a GGUF file as the store's folder of safetensors, or as it is.
    """

    rungs: ClassVar[tuple[str, ...]] = ("litport",)
    converts_gguf: ClassVar[bool] = True
    engine: str = Field(description="What runs the model.")
    source: str | None = Field(None, description="The model's files.")
    aliases: list[ModelName] = Field(
        [],
        description="Further names that requests may call the model by, such as `gpt-4o-mini`; keys, metrics and logs "
        "have its own.",
    )
    fallback: ModelName | None = Field(
        None,
        description="The model that gets a request while this one is not ready or has no room; the answer's header "
        "X-Litport-Served-By names it.",
    )
    replicas: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Process trees that serve it side by side, each with weights of its own; a request goes to the one "
        "with the fewest.",
    )
    required: bool = Field(True, description="Whether /ready waits for this model.")
    load: Literal["at_start", "on_demand"] = Field(
        "at_start", description="When the model is loaded: with the platform, or by the first request to it."
    )
    idle_unload_s: Seconds | None = Field(
        None, description="How long the model may be idle before it is unloaded, in seconds; null for ever."
    )
    min_resident_s: float = Field(
        30, ge=0, description="How long the model stays after each load before it is unloaded by itself, in seconds."
    )
    pin: bool = Field(
        False,
        description="Whether the model is never unloaded to make room; one that is loaded at the start, and has no "
        "idle_unload_s, never is.",
    )
    on_demand_wait: bool = Field(
        True,
        description="Whether requests wait while the model is loaded for them, as they wait for their turn; else they "
        "are refused with 503 and a Retry-After of what its last start took.",
    )
    start_timeout_s: Seconds = Field(900, description="How long a start may take, the pull not counted, in seconds.")
    max_restarts: int = Field(5, ge=0, description="Restarts after a crash before the model counts as failed.")
    request_timeout_s: Seconds | None = Field(
        None, description="Longest a whole request may take, in seconds; null for limits.request_timeout_s."
    )
    max_running: Count | None = Field(
        None, description="Most requests that the model handles at a time; null for what the engine can batch."
    )
    max_waiting: int = Field(
        256, ge=0, description="Most requests that wait for their turn; further ones are refused with 429."
    )
    canary_interval_s: Seconds | None = Field(
        4, description="Time between two checks whether an idle model still answers, in seconds; null for none."
    )
    canary_timeout_s: Seconds = Field(
        8, description="How long a model may give no answer before it counts as stuck and is restarted, in seconds."
    )
    embeds_token_ids: bool = Field(
        False,
        description="Whether /v1/embeddings takes token ids beside text, for callers who use the model's tokenizer; "
        "ids of another one are embedded as other words.",
    )
    env: dict[Annotated[str, AfterValidator(_variable_name)], Annotated[str, Field(pattern=r"^[^\x00]*$")]] = Field(
        {}, description="Environment variables added for this model's process."
    )


class VllmModel(ModelSettings):
    """A language model served by vLLM."""

    rungs = ("transformers", "transformers-batched", "vllm-offline", "fastapi", "litserve", "vllm", "litport")
    engine: Literal["vllm"] = Field(description="What runs the model.")
    source: Text = Field(description="The model's files: a catalog name, a hub name `org/name`, or a folder.")
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
    args: Annotated[dict[Annotated[str, AfterValidator(option_name)], JsonValue], Keys(option_name)] = Field(
        {}, description="vLLM's own options by their names without the dashes, such as `max-model-len: 4096`."
    )


class LlamaCppModel(ModelSettings):
    """A language model in a GGUF file, served by llama.cpp's own server."""

    converts_gguf = False
    engine: Literal["llamacpp"] = Field(description="What runs the model.")
    source: Text = Field(description="A GGUF file, `./model.gguf`; it is used where it is, and not converted.")
    args: Annotated[dict[Annotated[str, AfterValidator(_llamacpp_option)], JsonValue], Keys(_dashed)] = Field(
        {}, description="llama.cpp's own options by their long names without the dashes, such as `ctx-size: 8192`."
    )


class Accept(Section):
    """How far a faster variant of a model may be from its eager float32 form."""

    cosine: Annotated[float, Field(ge=0, le=1)] = Field(
        0.999, description="Least cosine between its vectors and those of eager float32, over the texts of the proof."
    )
    top1: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Least share of the pictures of the proof that keep their class."
    )


class LitServeModel(ModelSettings):
    """Any other model, through a LitAPI."""

    rungs = ("model", "model-batched", "fastapi", "litserve", "litport")
    engine: Literal["litserve"] = Field(description="What runs the model.")
    api: Text = Field(
        description="The LitAPI: a built-in or installed name, `package.module:Class`, or `./file.py:Class`."
    )
    source: Text | None = Field(
        None, description="The model's files, as for vLLM; the API's constructor gets their folder as `model_dir`."
    )
    init: Annotated[dict[str, JsonValue], Keys(lambda key: key.replace("-", "_"))] = Field(
        {}, description="Further keyword arguments of the API's constructor."
    )
    runtime: Literal["eager", "onnxruntime", "openvino"] = Field(
        "eager",
        description="What computes the APIs embedding and image_classification: torch as it is, or, on a CPU, "
        "ONNX Runtime or OpenVINO, which need packages of their own.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="What the APIs embedding and image_classification compute in. Whatever differs from eager float32 "
        "serves only once its answers were proved equal (see docs/plugins.md).",
    )
    accept: Accept = Accept()
    on_failed_proof: Literal["fail", "eager"] = Field(
        "fail", description="What happens where the proof fails: the start fails, or eager float32 serves."
    )
    serving: Literal["host", "litserve"] | None = Field(
        None,
        description="What runs the LitAPI: `host` is Litport's worker host, `litserve` LitServe's own server, with "
        "more overhead and without cancelling; null for the host, or LitServe's where the host cannot (see "
        "docs/plugins.md).",
    )
    accelerator: Literal["auto", "cpu", "cuda", "mps"] | None = Field(None, description="Where the workers compute.")
    devices: Count | Literal["auto"] | list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="How many devices, or which ones by index."
    )
    workers_per_device: Count | None = Field(None, description="Worker processes on each device.")
    max_batch_size: Count | None = Field(None, description="Most requests put into one batch.")
    batch_timeout_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="How long a batch waits to fill, in seconds; needs max_batch_size of 2 or more."
    )
    stream: bool | None = Field(None, description="Whether the API yields its answer in parts.")
    timeout_s: Seconds | None = Field(None, description="How long a request may wait for a worker, in seconds.")
    cancel_grace_s: Seconds = Field(
        5,
        description="How long cancelled work may go on before its worker is replaced, in seconds; work is cancelled "
        "when its client leaves or its time is over.",
    )
    api_server_count: Count | None = Field(None, description="HTTP server processes of LitServe's own server.")
    callbacks: list[Text] = Field(
        [], description="LitServe callbacks: classes without arguments, `package.module:Class` or `./file.py:Class`."
    )
    loggers: list[Text] = Field([], description="LitServe loggers, which get what the API's `log` is given: classes.")
    example: JsonValue | None = Field(
        None, description="A JSON request used to test that the model answers; by default what the API declares."
    )

    @field_validator("api")
    @classmethod
    def _is_an_api(cls, api: str) -> str:
        if not re.fullmatch(r"[\w.-]+|[\w.]+:\w+|.+\.py:\w+", api) or api.endswith(".py"):
            raise ValueError("expected a name, package.module:Class or ./file.py:Class")
        return api

    @field_validator("init")
    @classmethod
    def _leaves_model_dir_alone(cls, init: dict[str, JsonValue], info: ValidationInfo) -> dict[str, JsonValue]:
        if info.data.get("source") and "model_dir" in init:
            raise ValueError("expected no model_dir beside source, which sets it; keep one of the two")
        return init

    @field_validator("batch_timeout_s")
    @classmethod
    def _has_a_batch_to_wait_for(cls, batch_timeout_s: float | None, info: ValidationInfo) -> float | None:
        if batch_timeout_s is not None and info.data.get("max_batch_size", 2) in (None, 1):
            raise ValueError("nothing to wait for in batches of one; set max_batch_size to 2 or more, or remove this")
        return batch_timeout_s


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
