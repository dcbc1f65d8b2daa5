"""The settings of a benchmark: the workload, its arrivals, what counts as valid, and the rungs of the ladder.

They are part of the settings tree, so one recipe serves and measures a model. `benchmarks` measures.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from configs.litserve import LitServeModel
from configs.llamacpp import LlamaCppModel
from configs.model import Count, Seconds, Section, Text
from configs.vllm import VllmModel

RUNGS = [*dict.fromkeys((*VllmModel.rungs, *LitServeModel.rungs, *LlamaCppModel.rungs))]
"""The names that `rungs` takes; `configs.engines.register` adds those of further engines."""

VARIANT_RUNG = re.compile(r"model\[(eager|onnxruntime|openvino)(?:-(float32|bfloat16|float16))?\]")
"""The rung `model-batched` computed by another runtime, or in another precision."""
RAY_RUNG = re.compile(r"(ray|ray-ingress)(?:\[([1-9]\d?)\])?")
"""The model on the Ray cluster behind Litport's gateway, or behind Ray's own ingress, in so many replicas."""
_NUMBER = r"\d+(?:\.\d+)?"
LENGTH = re.compile(rf"(\d+)|uniform\((\d+), *(\d+)\)|lognormal\(({_NUMBER}), *({_NUMBER})\)")


def _check_length(text: str) -> str:
    match = LENGTH.fullmatch(text)
    if match is None:
        raise ValueError("expected a number such as 64, uniform(LEAST, MOST), or lognormal(MEDIAN, SIGMA)")
    constant, least, most, median, _ = match.groups()
    if int(constant or least or float(median)) < 1 or (least and int(least) > int(most)):
        raise ValueError("expected lengths of 1 token or more, the least before the most")
    return text


def _check_rung(name: str) -> str:
    is_known = name in RUNGS or VARIANT_RUNG.fullmatch(name) or RAY_RUNG.fullmatch(name)
    if not is_known and not re.match(r"https?://[^/]+", name):
        raise ValueError(
            f"expected {', '.join(RUNGS)}, model[RUNTIME] or model[RUNTIME-PRECISION], as in "
            "model[openvino-bfloat16], ray, ray[REPLICAS], ray-ingress, or the URL of somebody else's server"
        )
    return name


Length = Annotated[str, AfterValidator(_check_length)]
Rung = Annotated[str, AfterValidator(_check_rung)]


class Workload(Section):
    """The requests; the same for every rung, and the same again for the same seed."""

    kind: Literal["tokens", "shared-prefix", "chat", "texts", "file", "images", "example"] | None = Field(
        None,
        description="Random tokens, random tokens behind shared prefixes, chats of several turns, random texts to "
        "embed (lengths in words), a JSONL file, pictures, or the model's own example; by default tokens for text "
        "models, images for image classification.",
    )
    requests: Count = Field(64, description="Requests in a measurement.")
    seed: int = Field(0, ge=0, description="Seed of everything that is random.")
    input_tokens: Length = Field(
        "64", description="Tokens of a prompt: a number, uniform(LEAST, MOST) or lognormal(MEDIAN, SIGMA)."
    )
    output_tokens: Length = Field("32", description="Tokens of an answer, likewise; the end of text is ignored.")
    inputs_per_request: Count = Field(1, description="Texts in one embedding request.")
    prefixes: Count = Field(1, description="Different prefixes that shared-prefix draws from.")
    prefix_tokens: Count = Field(256, description="Tokens of a shared prefix, in front of `input_tokens` more.")
    turns: Count = Field(4, description="Turns of a chat; each waits for the answer to the one before.")
    path: Path | None = Field(
        None,
        description="The JSONL file (ShareGPT's form or OpenAI's batch form), or the folder of pictures; "
        "without a folder pictures are drawn by the seed.",
    )

    @field_validator("path")
    @classmethod
    def _exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.exists():
            raise ValueError("expected a file or folder that exists")
        return path


class Load(Section):
    """How requests arrive."""

    shape: Literal["closed", "poisson", "constant", "bursts", "ramp", "trace"] = Field(
        "closed",
        description="closed: each user asks again once answered. poisson, constant, bursts: at `rate_per_s`, whether "
        "answered or not. ramp: closed, with more users until throughput stops growing. trace: at recorded times.",
    )
    users: Count = Field(16, description="Requests under way at a time (closed, ramp: at most).")
    max_in_flight: Count = Field(256, description="Most requests under way when arrivals do not wait for answers.")
    rate_per_s: Seconds | None = Field(
        None, validate_default=True, description="Requests a second, for poisson, constant and bursts."
    )
    burst_size: Count = Field(8, description="Requests of a burst.")
    trace: Path | None = Field(
        None,
        validate_default=True,
        description="JSONL file with `timestamp`, and perhaps `input_length` and `output_length`, a request.",
    )
    time_scale: Seconds = Field(1, description="Seconds that one unit of a trace's timestamps takes.")
    generators: Count = Field(1, description="Processes that make the load.")
    time_limit_s: Seconds = Field(60, description="After this no further request is sent in a measurement.")

    @field_validator("rate_per_s")
    @classmethod
    def _has_a_rate(cls, rate_per_s: float | None, info: ValidationInfo) -> float | None:
        if rate_per_s is None and info.data.get("shape") in ("poisson", "constant", "bursts"):
            raise ValueError(f"expected a number for shape {info.data['shape']}")
        return rate_per_s

    @field_validator("trace")
    @classmethod
    def _has_a_file(cls, trace: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("shape") == "trace" and (trace is None or not trace.is_file()):
            raise ValueError("expected a JSONL file for shape trace")
        return trace


class Slo(Section):
    """The limits of a good answer, for goodput; null is no limit."""

    ttft_s: Seconds | None = Field(None, description="Longest time to first token, in seconds.")
    tpot_s: Seconds | None = Field(None, description="Longest time per output token after the first, in seconds.")
    e2e_s: Seconds | None = Field(None, description="Longest time to the whole answer, in seconds.")


class Validity(Section):
    """The limits beyond which a measurement is not valid."""

    max_generator_load: Seconds = Field(
        0.5, le=1, description="Largest share of its own ceiling that the load generator may have run at."
    )
    max_lag_s: Seconds = Field(0.05, description="Largest lag (p99) of the generator's loop, in seconds.")
    max_rate_error: Seconds = Field(0.05, description="Largest share by which achieved and offered rate may differ.")
    max_hit_rate_error: Seconds = Field(
        0.05, description="Largest difference between found and expected share of prompt tokens from the prefix cache."
    )
    max_drift: Seconds = Field(
        0.3,
        description="Largest share by which throughput may differ between the two halves of a measurement, or between "
        "the passes of a rung.",
    )
    max_throttled: Seconds = Field(
        0.05, description="Largest share of the time in which the CPU quota may throttle Litport."
    )
    max_logprob_distance: Seconds = Field(
        0.005,
        description="Largest mean difference (nats) between the log-probabilities of equal tokens, for answers to "
        "count as the baseline's; for float32, as 16 bits round more.",
    )
    max_score_distance: Seconds = Field(
        0.001, description="Largest difference of a classifier's scores, likewise; scores go from 0 to 1."
    )


class Bench(Section):
    """What `litport bench run` measures, and what it compares with."""

    model: Text | None = Field(None, description="The model to measure; not needed where there is only one.")
    rungs: list[Rung] = Field(
        [],
        description="Rungs of the ladder, the baseline first; a URL is another server. By default all that "
        "the model's engine has. model[onnxruntime], model[openvino-bfloat16] and the like are the model in batches "
        "by that runtime; ray, ray[2] and ray-ingress are the model on the cluster of `cluster.dashboard`.",
    )
    passes: Count = Field(2, description="Times that the ladder is climbed, every second time from the top down.")
    warmup_requests: int = Field(4, ge=0, description="Requests before each measurement that are not counted.")
    max_batch_size: Count = Field(32, description="Largest batch tried for the bare model's best one.")
    percentiles: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        [50, 90], description="Percentiles that the measurement must support."
    )
    parity_prompts: int = Field(4, ge=0, description="Requests whose answers are compared between the rungs.")
    sample_interval_s: Seconds = Field(0.5, description="Time between two samples of the hardware, in seconds.")
    price_per_hour: Seconds | None = Field(None, description="What the machine costs an hour, in any currency.")
    workload: Workload = Field(default_factory=Workload, description=str(Workload.__doc__))
    load: Load = Field(default_factory=Load, description=str(Load.__doc__))
    slo: Slo = Field(default_factory=Slo, description=str(Slo.__doc__))
    validity: Validity = Field(default_factory=Validity, description=str(Validity.__doc__))
