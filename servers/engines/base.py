"""The engine of one model, as the supervisor sees it.

Engines differ in how they start, in the request that shows that they answer rightly, and in the processes that they
need. Each difference is a method here. An engine describes its child process; the supervisor starts and ends it. An
engine whose models run elsewhere describes none.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from servers.apis.equality import Equality
from servers.engines.connection import Connection, NotTakenError
from servers.processes.group import Member
from servers.processes.pause import pausable_timeout

_DESCRIPTION_S = 10.0
TENSOR_PATH = "/v2/infer"
"""Where a connection takes inference requests with tensors, if the card has any."""


@dataclass(frozen=True)
class Command:
    """A child process to start: its arguments, and its variables that differ from Litport's own environment."""

    argv: list[str]
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Needs:
    """What the start of a model takes of the machine; `gpu_shares` are parts of the memory of GPUs, by CUDA's names."""

    cores: int
    memory_bytes: int
    gpu_shares: Mapping[str, float] = field(default_factory=dict)


class Rules(Protocol):
    """What an engine does with a request without a word, or in words that its callers cannot follow."""

    def review(self, path: str, document: Mapping[str, Any], *, refuse_unknown: bool) -> Mapping[str, str]:
        """Headers for the answer that tell the caller what the engine ignores of this body.

        Raises ApiError for a request that the engine would answer as another one; with `refuse_unknown` for every field
        that it ignores.
        """
        ...

    def explain(self, error: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """The `error` object of one of the engine's own answers, clearer where it can be, and a line for the log.

        The line has what the clearer one leaves out, and nothing of the request's content; "" where there is nothing.
        """
        ...


@dataclass(frozen=True)
class Card:
    """What a ready instance offers.

    `routes` are the paths that lead to it by the `model` of a request's body. `predict_path` is the child's path for
    `/predict/<model>` (None: not served). `listing` are its entries in `/v1/models`, `openapi` is the child's own
    document, `max_running` the number of requests that it can work on at a time, and `example` a request that it
    accepts (None: unknown). `rules` reviews the bodies of requests (None: none is reviewed). `serving` is how the
    engine serves it, where there are several ways, and `note` is what a person should know of that.
    `equality` is how near its answers are to those of eager float32, where that was measured. `tensors` are the
    `inputs` and `outputs` of inference requests at TENSOR_PATH, each with name, datatype and shape (None: not served).
    `knows_aliases` is whether the process takes a request whose body calls the model by an alias, and
    `counts_one_choice` whether its `usage` counts one of an answer's prompts and choices only.
    """

    routes: frozenset[str]
    predict_path: str | None = None
    listing: tuple[Mapping[str, Any], ...] = ()
    openapi: Mapping[str, Any] = field(default_factory=dict)
    max_running: int = 16
    example: Any = None
    rules: Rules | None = None
    serving: str | None = None
    note: str = ""
    equality: Equality | None = None
    tensors: Mapping[str, Any] | None = None
    knows_aliases: bool = True
    counts_one_choice: bool = False


class CanaryError(Exception):
    """The child gave a wrong answer; the message names the request and the answer."""


WRONG_ANSWER = (CanaryError, LookupError, TypeError, ValueError, msgspec.MsgspecError)
"""What reading a wrong answer raises: CanaryError where it is judged, the others where it has not the form of one."""


def describe_wrong(problem: Exception) -> str:
    """A line about one of WRONG_ANSWER."""
    if isinstance(problem, CanaryError):
        return str(problem)
    return f"it has not the form of an answer ({type(problem).__name__}: {problem})"


class Engine(Protocol):
    """One kind of child process, bound to one model's settings."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def kind(self) -> str:
        """The engine's name as the settings know it."""
        ...

    def command(self, model_dir: Path | None, socket: Path) -> Command | None:
        """The child that serves the model from `model_dir` on the Unix socket `socket`; None for one elsewhere.

        Raises UserError where the files show that it would not serve rightly.
        """
        ...

    def connect(self, socket: Path) -> Connection:
        """The way to the child that listens on `socket`; it need not listen yet."""
        ...

    async def warm(self, connection: Connection) -> Card:
        """Request one token or one prediction, and return what the model offers.

        Raises CanaryError for a wrong answer, CONNECTION_LOST for none.
        """
        ...

    async def canary(self, connection: Connection, card: Card) -> None:
        """Request one token or one prediction; raises as `warm` does."""
        ...

    def answers_in_parts(self) -> bool:
        """Whether the canary is answered beside other requests, and not after them."""
        ...

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """Whether the model is broken once this process of its group is gone."""
        ...

    def needs(self, model_dir: Path | None) -> Needs:
        """A rough upper estimate of what the whole child takes while it starts."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """An engine whose processes can take over more of other settings than `in_place`, while they serve."""

    def adapted(self, settings: Any) -> Engine | None:
        """The engine with these settings, which the processes of this one can take over; None where they cannot."""
        ...

    async def adapt(self, connection: Connection, card: Card) -> Card:
        """Bring processes that were started with other settings to this engine's, and return what they offer then.

        Raises CanaryError for what they refuse, CONNECTION_LOST.
        """
        ...


@runtime_checkable
class Sleeper(Protocol):
    """An engine whose processes can give back memory while they stay, and take it again faster than a start."""

    @property
    def sleep_levels(self) -> Sequence[int]:
        """The levels through which an idle one goes, each of which gives back more; none where it cannot sleep."""
        ...

    def shares_asleep(self) -> Mapping[str, float]:
        """A rough estimate of the parts of GPUs that it keeps while it sleeps."""
        ...

    async def sleep(self, connection: Connection, card: Card, level: int, before: int) -> None:
        """Let idle processes sleep at this level; they sleep at the level `before` already, 0 where they are awake.

        Raises CanaryError where they do not, CONNECTION_LOST.
        """
        ...

    async def wake(self, connection: Connection, card: Card, level: int) -> None:
        """Let processes that sleep at this level serve again, as they did before.

        Raises CanaryError where they do not, or answer otherwise than before, CONNECTION_LOST.
        """
        ...


async def post(
    connection: Connection, path: str, document: object, headers: Mapping[str, str] | None = None, query: str = ""
) -> bytes:
    """POST JSON and return the whole answer. Raises CanaryError, which quotes it, for a status other than 200."""
    body = msgspec.json.encode(document)
    reply = await connection.send("POST", path, body, {"content-type": "application/json", **(headers or {})}, query)
    answer = await reply.read()
    if reply.status != 200:
        raise CanaryError(f"POST {path} was answered {reply.status}: {answer[:300].decode(errors='replace')}")
    return answer


@contextlib.asynccontextmanager
async def description_limit() -> AsyncIterator[None]:
    """Bounds the time in which a server elsewhere says what it offers: a frozen one takes connections, and is silent.

    Raises NotTakenError.
    """
    try:
        async with pausable_timeout(_DESCRIPTION_S):
            yield
    except TimeoutError:
        raise NotTakenError(f"its server has not said within {_DESCRIPTION_S:g} s what it offers") from None


async def get(connection: Connection, path: str) -> bytes:
    """GET and return the whole answer. Raises CanaryError for a status other than 200."""
    reply = await connection.send("GET", path)
    answer = await reply.read()
    if reply.status != 200:
        raise CanaryError(f"GET {path} was answered {reply.status}")
    return answer


class Elsewhere:
    """What an `Engine` says whose model runs elsewhere, and has no process here."""

    def command(self, model_dir: Path | None, socket: Path) -> None:
        """None."""

    def answers_in_parts(self) -> bool:
        """True: a server, or a replica, answers beside other requests."""
        return True

    def is_vital(self, member: Member, main_pid: int) -> bool:  # noqa: ARG002 # of the protocol
        """False."""
        return False

    def needs(self, model_dir: Path | None) -> Needs:  # noqa: ARG002 # of the protocol
        """Nothing of this machine."""
        return Needs(0, 0)


def weight_bytes(model_dir: Path | None) -> int:
    """The size of the weight files in a folder (0 when there is none)."""
    if model_dir is None:
        return 0
    return sum(file.stat().st_size for file in model_dir.iterdir() if file.suffix in {".safetensors", ".bin", ".gguf"})
