"""What the supervisor needs to know of an engine, and nothing more.

vLLM and LitServe differ in how they are started, how one sees that they answer rightly, and which of their processes
they cannot live without. Each difference is a method here, so that the supervisor treats every model alike. An engine
describes; it never starts or ends a process itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from servers.processes.group import Member


@dataclass(frozen=True)
class Command:
    """A child process to start: its arguments, and the variables that differ from our own environment."""

    argv: list[str]
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Needs:
    """What starting a model takes of the machine."""

    cores: int
    memory_bytes: int


@dataclass(frozen=True)
class Card:
    """What a ready model offers.

    `routes` are the paths that reach it by the `model` in the request's body, `predict_path` is where
    `/predict/<model>` leads in the child (None: nowhere), `listing` its entries for `/v1/models`, `openapi` what the
    child documents of itself, `max_running` how many requests it can work on at a time, and `example` a request that it
    takes (None: unknown).
    """

    routes: frozenset[str]
    predict_path: str | None = None
    listing: tuple[Mapping[str, Any], ...] = ()
    openapi: Mapping[str, Any] = field(default_factory=dict)
    max_running: int = 16
    example: Any = None


class CanaryError(Exception):
    """The child answers, but not rightly; the message says what was asked and what came."""


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

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        """The child that serves the model from `model_dir` on the Unix socket `socket`."""
        ...

    async def warm(self, session: aiohttp.ClientSession) -> Card:
        """Ask for one token or one prediction and return what the model offers.

        Raises CanaryError when the answer is wrong, aiohttp.ClientError when there is none.
        """
        ...

    async def canary(self, session: aiohttp.ClientSession, card: Card) -> None:
        """Ask for one token or one prediction; raises as `warm` does."""
        ...

    def answers_in_parts(self) -> bool:
        """Whether the canary may go beside other requests, since it is answered along with them and not after them."""
        ...

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """Whether the model is broken once this process of its group is gone."""
        ...

    def needs(self, model_dir: Path | None) -> Needs:
        """A rough upper estimate of what the whole child takes while it starts."""
        ...


async def ask(
    session: aiohttp.ClientSession, path: str, body: object, headers: Mapping[str, str] | None = None
) -> bytes:
    """POST JSON and return the whole answer; a status other than 200 is a CanaryError that quotes it."""
    async with session.post(path, json=body, headers=headers) as response:
        answer = await response.read()
        if response.status != 200:
            raise CanaryError(f"POST {path} was answered {response.status}: {answer[:300].decode(errors='replace')}")
        return answer


def weight_bytes(model_dir: Path | None) -> int:
    """The size of the weight files in a folder (0 when there is none)."""
    if model_dir is None:
        return 0
    return sum(file.stat().st_size for file in model_dir.iterdir() if file.suffix in {".safetensors", ".bin", ".gguf"})
