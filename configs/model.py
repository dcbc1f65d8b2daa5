"""The settings that a model has with any engine. Each engine's own are in the module of its name.

They are checked before a process starts, so that a mistake shows at once and not after minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

SECTION_TAG = "section"
"""In pydantic's locations, a mapping that stands in the place of a single value."""


@dataclass(frozen=True)
class Keys:
    """How the free keys of a mapping are spelt, so that every source gives an entry the same name."""

    spell: Callable[[str], str]


class Section(BaseModel):
    """A part of the tree: unknown keys are errors, values do not change after loading, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


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


def _one_for_each_replica(devices: Any, info: ValidationInfo) -> Any:
    replicas = info.data.get("replicas")
    if isinstance(devices, list) and devices and isinstance(devices[0], list) and replicas not in (None, len(devices)):
        raise ValueError(f"expected a list of devices for each replica, that is {replicas}, got {len(devices)}")
    return devices


Devices = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
ReplicaDevices = Annotated[list[Devices], Field(min_length=1)]
OneForEachReplica = AfterValidator(_one_for_each_replica)
"""Marks `devices`: a list of lists has one for each replica."""


def _replica_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_whole = False
    rest = parts.path.rstrip("/") + parts.query + parts.fragment if is_whole else ""
    if not is_whole or rest or "@" in parts.netloc or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("expected scheme, host and port alone, such as http://10.0.0.7:8100")
    return text.rstrip("/")


def different(addresses: list[str]) -> list[str]:
    """The addresses, each there once. Raises ValueError."""
    if len(set(addresses)) < len(addresses):
        raise ValueError("expected different addresses")
    return addresses


ModelName = Annotated[str, AfterValidator(_model_name)]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
SHORTEST_KEY = 16
"""Characters of a caller's key at least; `litport keys new` makes longer ones."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _existing_file(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise ValueError("expected a file that exists")
    return path


_File = Annotated[Path, AfterValidator(_existing_file)]


class Check(Section):
    """A request that a model must answer rightly at each start, and what must hold of the answer."""

    path: Annotated[str, Field(pattern="^/")] | None = Field(
        None, description="The route that is asked, such as `/v1/chat/completions`; null for the one that predicts."
    )
    body: JsonValue = Field({}, description="The JSON body; a route under `/v1` gets the model's name in it.")
    file: _File | None = Field(None, description="In place of the body, a file to upload as the field `file`.")
    status: Annotated[int, Field(ge=100, le=599)] = Field(200, description="The status of the answer.")
    contains: Text | None = Field(None, description="Text that is in the answer.")
    equals: dict[Text, JsonValue] = Field(
        {},
        description="Values in the JSON of the answer, each by its path, such as `predictions.0.label: tabby`; numbers "
        "are equal up to a millionth.",
    )
    reference: _File | None = Field(
        None, description="JSON file with vectors, such as an answer that was stored; those of the answer must be near."
    )
    cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.99, description="Least cosine between a vector of the answer and its `reference`."
    )
    within_s: Seconds | None = Field(None, description="How long the answer may take, in seconds; null for any time.")

    @field_validator("file")
    @classmethod
    def _is_alone(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None and info.data.get("body"):
            raise ValueError("expected a body or a file, got both")
        return file


class Resources(Section):
    """What Ray sets aside for one replica of a model."""

    cpus: float = Field(1, ge=0, description="Processors, of those that the node offers to Ray.")
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs, which alone it sees; null: with vLLM's CUDA build tensor-parallel-size times "
        "pipeline-parallel-size times data-parallel-size, else 0.",
    )
    memory_bytes: int | None = Field(
        None, ge=1, description="Memory, in bytes, which is counted and not enforced; null for none."
    )


_Replicas = Annotated[int, Field(ge=1, le=64, strict=True)]


class Autoscaling(Section):
    """A number of replicas on Ray that follows the requests which run and wait, at all gateways together."""

    min: _Replicas = Field(1, description="Replicas at least.")
    max: _Replicas = Field(description="Replicas at most.")
    target_running: float = Field(gt=0, description="Requests that run or wait for each replica.")
    down_after_s: float = Field(60, ge=0, description="How long fewer must be enough before one ends, in seconds.")

    @model_validator(mode="after")
    def _is_in_order(self) -> Autoscaling:
        if self.min > self.max:
            raise ValueError(f"expected a max that is not below min, got min {self.min} and max {self.max}")
        return self


def _kind_of_replicas(value: Any) -> str:
    return SECTION_TAG if isinstance(value, Mapping | Autoscaling) else "number"


class ModelSettings(Section):
    """What the settings of a model have with any engine; an engine's own class adds a Literal `engine` and the rest.

    `rungs` are the names that `bench.rungs` takes for a model of the engine, the baseline first. `converts_gguf` is
    whether the engine gets a GGUF file as the store's folder of safetensors, or as it is. `caches_prefixes` is whether
    an instance answers a prompt faster when it had one with the same beginning before. `in_place` are the settings
    that a running model takes over; a change of another one needs new processes.
    """

    rungs: ClassVar[tuple[str, ...]] = ("litport",)
    caches_prefixes: ClassVar[bool] = False
    converts_gguf: ClassVar[bool] = True
    in_place: ClassVar[frozenset[str]] = frozenset(
        {
            "aliases",
            "embeds_token_ids",
            "fallback",
            "idle_unload_s",
            "load",
            "max_running",
            "max_waiting",
            "min_resident_s",
            "on_demand_wait",
            "pin",
            "request_timeout_s",
            "required",
            "rollback_s",
        }
    )
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
    replicas: Annotated[
        Annotated[_Replicas, Tag("number")] | Annotated[Autoscaling, Tag(SECTION_TAG)], Discriminator(_kind_of_replicas)
    ] = Field(
        1,
        description="Process trees that serve it side by side, each with weights of its own; a request goes to the one "
        "with the fewest, or with vLLM to the one whose prefix cache likely has its prompt. On Ray, a mapping: `min` "
        "(1) to `max`, so that `target_running` requests run or wait for each; `down_after_s` (60) of less end one.",
    )
    instances: Annotated[list[Annotated[str, AfterValidator(_replica_address)]], AfterValidator(different)] = Field(
        [],
        description="Addresses of replicas of the model (`litport replica`), such as `http://10.0.0.7:8100`; with any, "
        "no process serves it here.",
    )
    resources: Resources = Field(
        Resources(), description="What Ray sets aside for each replica, where the recipe is deployed on Ray."
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
    checks: dict[Text, Check] = Field(
        {},
        description="Requests, each under a name, that the model must answer rightly at each start before it is ready: "
        "a new version with a wrong answer gets no traffic.",
    )
    rollback_s: float = Field(
        300,
        ge=0,
        description="How long the version before a swap stays in memory, so that a rollback to it is instant; it is "
        "the first to make room.",
    )
    recorded_requests: Annotated[int, Field(ge=0, le=1024)] = Field(
        0,
        description="How many of the last requests that differ are kept in memory for `litport swap --compare`, each "
        "of at most 64 KiB; they are never written anywhere.",
    )
    embeds_token_ids: bool = Field(
        False,
        description="Whether /v1/embeddings takes token ids beside text, for callers who use the model's tokenizer; "
        "ids of another one are embedded as other words.",
    )
    env: dict[Annotated[str, AfterValidator(_variable_name)], Annotated[str, Field(pattern=r"^[^\x00]*$")]] = Field(
        {}, description="Environment variables added for this model's process."
    )

    @property
    def replica_count(self) -> int:
        """How many process trees serve it; at least so many where their number follows the load."""
        return self.replicas.min if isinstance(self.replicas, Autoscaling) else self.replicas
