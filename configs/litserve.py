"""The settings of a model that is served through a LitAPI."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from configs.model import Count, Devices, Keys, ModelSettings, OneForEachReplica, ReplicaDevices, Seconds, Section, Text


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
    runtime: Literal["eager", "onnxruntime", "openvino", "auto"] = Field(
        "eager",
        description="What computes the model: torch as it is, or, on a CPU, ONNX Runtime or OpenVINO, which need "
        "packages of their own, or the fastest of those that are installed. For the APIs embedding, "
        "image_classification and pipeline, and those with `export_modules` (see docs/plugins.md).",
    )
    runtime_options: dict[Text, JsonValue] = Field(
        {},
        description="Further options of the session of onnxruntime or openvino, by its own names, such as "
        "`graph_optimization_level: ORT_ENABLE_EXTENDED` or `NUM_STREAMS: 2`; not those that Litport sets: threads, "
        "spinning, precision.",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="What the model computes in: bfloat16 for embedding and image_classification, and with openvino; "
        "float16 for these APIs on a GPU, and with openvino on a processor that computes it. Whatever differs from "
        "eager float32 serves only once its answers were proved equal (see docs/plugins.md).",
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
    devices: Annotated[Count | Literal["auto"] | Devices | ReplicaDevices | None, OneForEachReplica] = Field(
        None, description="How many devices, or which ones by index; [[0], [1]] are those of each replica."
    )
    workers_per_device: Count | None = Field(None, description="Worker processes on each device.")
    max_batch_size: Count | None = Field(None, description="Most requests put into one batch.")
    batch_timeout_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="How long a batch waits to fill, in seconds; needs max_batch_size of 2 or more."
    )
    isolate_failures: bool = Field(
        True,
        description="Whether each request of a batch is tried alone once when `predict` raises for the batch, so that "
        "one bad input does not fail the others; off where `predict` must not run twice for a request.",
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
