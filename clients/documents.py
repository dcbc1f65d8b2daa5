"""The documents that a platform answers with itself, as types: `/health`, `/ready`, `/status` and `/v1/models`.

The front door builds its answers and their OpenAPI schemas from these types, and the clients read with them. The order
of the fields is the order in the answers. A reader ignores fields that it does not know, so a client keeps working when
a later platform adds one; a field that an earlier platform may lack has a default.
"""

from typing import Annotated, Any, Literal

import msgspec

from clients.residence import Residence
from clients.version import OtherVersion

# A platform and a client understand each other while this number is the same. Adding a field does not change it;
# removing or renaming one, or changing its type, does.
VERSION = 1

# Text and not an enumeration, so that a client can show a state that a later platform adds.
STATES = ("pulling", "starting", "ready", "draining", "asleep", "unloaded", "stopped", "failed")
# Requests to a model that is asleep or unloaded wait for its load.
TAKES_REQUESTS = ("ready", "asleep", "unloaded")
State = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(STATES)})]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The front door is alive."""

    status: Literal["ok"]


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every required model takes traffic, and the state of each model by its name."""

    ready: bool
    models: dict[str, State]


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model as OpenAI lists it, with its engine (`kind`) and state; an adapter of a vLLM model has its own entry.

    `created` is Unix time. An entry from vLLM has more fields in the answer.
    """

    id: str
    object: str
    created: int
    owned_by: str
    kind: str
    state: State


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every model, ready or not."""

    object: Literal["list"]
    data: list[ModelEntry]


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """The value that 50 and 95 per cent of the requests do not exceed."""

    p50: float
    p95: float


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that ended within the last `window_s` seconds.

    `failed` are those that the model or the platform failed (5xx, or an answer that broke off), and not those that the
    caller got wrong (4xx). The times are those of requests that were answered; null where there was none.
    """

    window_s: float
    requests: int
    failed: int
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    duration_s: Percentiles | None
    ttft_s: Percentiles | None


class Equality(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a `variant` of the model, and the `precision` and `runtime` that serve because of that.

    Its answers to a number of fixed `inputs` were compared with those of eager float32: the least cosine, and the share
    with the same best class (null for vectors); both null where they were not finite, where the variant raised, and
    where `runtime: auto` took eager float32.
    """

    variant: str
    precision: str
    inputs: int
    cosine: float | None
    top1: float | None
    runtime: str = "eager"


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One of the places where a model runs: a process tree with a socket and a log file, or an address elsewhere."""

    state: State
    detail: str
    in_state_s: float
    restarts: int
    running: int
    address: str | None = None
    socket: str | None = None
    log_file: str | None = None
    group_id: int | None = None


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model: its state, its requests and its processes. One with an `address` runs there, and has none here.

    `memory_bytes` is resident memory of all `process_count` processes. `paths` is empty while the model is not up.
    `serving` is what runs a LitAPI, `host` or `litserve`. `instances` are all of its instances; `detail`, `phases_s`,
    `socket` and what else is of one are those of the one that is next. Ray is to run `target_replicas`. `equality` is
    null for a model that no proof compared with eager float32. `version` serves, and `others` have processes beside it.
    """

    name: str
    kind: str
    source: str | None
    state: State
    detail: str
    in_state_s: float
    phases_s: dict[str, float]
    restarts: int
    required: bool
    running: int
    waiting: int
    address: str | None = None
    socket: str | None = None
    log_file: str | None = None
    group_id: int | None = None
    process_count: int | None
    memory_bytes: int | None
    paths: list[str]
    serving: str | None = None
    equality: Equality | None = None
    instances: list[InstanceStatus] = []
    target_replicas: int | None = None
    cpu_cores: float | None = None
    residence: Residence | None = None
    recent: Recent | None = None
    version: str | None = None
    others: list[OtherVersion] = []


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a command has loaded or unloaded: its state before the command and after it."""

    model: str
    before: State
    state: State


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at the last sample; null is "not measured".

    `model` is the model whose work is on the GPU, null where that is nobody's, a stranger's or several models';
    `shared` says whether it is more than one's. `lost` says that the driver no longer reaches the GPU.
    """

    index: int
    name: str | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    shared: bool | None = None
    model: str | None = None
    lost: bool = False


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at the last sample: per cent of all cores, and memory within the container's limit."""

    cpu_percent: float | None
    memory_available_bytes: int
    memory_total_bytes: int
    gpus: list[Gpu]
    nvml_error: str | None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What runs where, and how busy it is. `hardware` is null while the platform has no sample of the machine."""

    version: str
    address: str
    metrics_address: str | None = None
    uptime_s: float
    in_flight: int
    hardware: Hardware | None = None
    models: list[ModelStatus]


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request failed. A `code` of vLLM is a number; errors in Anthropic's shape have no `param` and no `code`.

    Errors of the front door name the request, those of a model's process do not.
    """

    message: str
    type: str
    param: str | None = None
    code: str | int | None = None
    request_id: str | None = None


class Error(msgspec.Struct, frozen=True, kw_only=True):
    """An error in OpenAI's shape."""

    error: ErrorDetail


class ServerLive(msgspec.Struct, frozen=True, kw_only=True):
    """The front door is alive, in the Open Inference Protocol."""

    live: bool


class ServerReady(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every required model takes traffic, in the Open Inference Protocol."""

    ready: bool


class ServerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The server, and the extensions of the Open Inference Protocol that it has."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model takes traffic."""

    name: str
    ready: bool


class TensorMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output of a model; -1 in the shape stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """An output of an inference: its elements in a flat list, or `binary_data_size` in its parameters."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an inference request in JSON."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class InferenceError(msgspec.Struct, frozen=True, kw_only=True):
    """An error in the Open Inference Protocol."""

    error: str


def read_status(answer: bytes) -> Status:
    """The status in an answer of `GET /status`. Raises msgspec.DecodeError if it is not one."""
    return _STATUS.decode(answer)


def read_readiness(answer: bytes) -> Readiness:
    """The readiness in an answer of `GET /ready`. Raises msgspec.DecodeError if it is not one."""
    return _READINESS.decode(answer)


_STATUS = msgspec.json.Decoder(Status)
_READINESS = msgspec.json.Decoder(Readiness)
