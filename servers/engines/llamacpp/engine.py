"""llama.cpp's own server as a child process: a GGUF file keeps its quantisation, and so its size and speed.

The program is `llama-server` from the PATH. Every option of it passes through.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings import LlamaCppModel
from servers.engines.base import CanaryError, Card, Command, Needs, get, post
from servers.engines.connection import Connection
from servers.engines.kind import EngineKind, Site
from servers.engines.llamacpp.connection import LlamaCppConnection
from servers.engines.llamacpp.rules import LlamaCppRules, document
from servers.engines.openai_document import CHAT, COMPLETIONS, EMBEDDINGS
from servers.processes.group import Member
from servers.store import sources

PROGRAM = "llama-server"
_GIB = 1024**3
# The KV cache of its default context and the compute buffers, for models of a size that suits a CPU.
_OVERHEAD_BYTES = _GIB


@dataclass(frozen=True)
class LlamaCppEngine:
    """llama.cpp's server for the model `name`; `paths` are those that clients may reach."""

    name: str
    settings: LlamaCppModel
    paths: frozenset[str]
    kind: str = "llamacpp"

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        """The child's command line; `model_dir` is the GGUF file. Raises OSError where the program is gone."""
        program = find_program()
        if program is None:
            raise FileNotFoundError(2, "No such program", PROGRAM)
        argv = [program, "--model", str(model_dir), "--alias", self.name, "--host", str(socket)]
        argv += ["--no-webui", "--no-slots", "--metrics", *_to_argv(self.settings.args)]
        return Command(argv, {**_environ(), **self.settings.env})

    def connect(self, socket: Path) -> Connection:
        """llama.cpp's server speaks HTTP on a Unix socket."""
        return LlamaCppConnection(socket)

    async def warm(self, connection: Connection) -> Card:
        """The canary, then what the server says of itself."""
        listing = json.loads(await get(connection, "/v1/models"))["data"]
        properties = json.loads(await get(connection, "/props"))
        routes = self.paths & ({EMBEDDINGS} if self.embeds else {CHAT, COMPLETIONS})
        openapi = document(routes, properties)
        card = Card(
            routes,
            listing=tuple({**entry, "owned_by": "llamacpp"} for entry in listing),
            openapi=openapi,
            max_running=int(properties["total_slots"]),
            rules=LlamaCppRules(openapi),
            counts_one_choice=True,  # findings/llama_server_usage_of_prompts.sh
        )
        await self.canary(connection, card)
        return card

    async def canary(self, connection: Connection, card: Card) -> None:
        """One token from a generating model, one vector from an embedding one."""
        if COMPLETIONS in card.routes:
            one_token = {"prompt": "1, 2, 3,", "max_tokens": 1, "temperature": 0, "cache_prompt": False}
            answer = json.loads(await post(connection, COMPLETIONS, one_token))
            if answer["usage"]["completion_tokens"] != 1:
                raise CanaryError(f"asked for one token, got {answer['usage']}")
        elif EMBEDDINGS in card.routes:
            answer = json.loads(await post(connection, EMBEDDINGS, {"input": "one"}))
            if not answer["data"][0]["embedding"]:
                raise CanaryError("asked for one embedding, got an empty one")

    def answers_in_parts(self) -> bool:
        """True: its slots work beside each other."""
        return True

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """It is one process."""
        return member.pid == main_pid

    def needs(self, model_dir: Path | None) -> Needs:
        """The file, the KV cache and buffers."""
        return Needs(1, _OVERHEAD_BYTES + (model_dir.stat().st_size if model_dir is not None else 0))

    @property
    def embeds(self) -> bool:
        """Whether its options say that it makes vectors in place of text."""
        return bool(self.settings.args.get("embeddings") or self.settings.args.get("embedding"))


def find_program() -> str | None:
    """The path of `llama-server`, None where it is not on the PATH."""
    return shutil.which(PROGRAM)


def _environ() -> Mapping[str, str]:
    # Threads that spin while they wait for each other take the core of the one that works: beside other load the same
    # requests took two to three times as long (docs/benchmarks.md).
    return {} if "OMP_WAIT_POLICY" in os.environ else {"OMP_WAIT_POLICY": "passive"}


def _to_argv(args: Mapping[str, Any]) -> list[str]:
    """`args` as arguments: True is a flag, None is left out, a list repeats the option."""
    argv = []
    for name, value in args.items():
        for item in value if isinstance(value, list) else [value]:
            if item is True:
                argv.append(f"--{name}")
            elif item is not None:
                argv += [f"--{name}", item if isinstance(item, str) else json.dumps(item)]
    return argv


def _make(name: str, settings: LlamaCppModel, site: Site) -> LlamaCppEngine:
    return LlamaCppEngine(name, settings, site.paths)


def _check_model(settings: LlamaCppModel) -> Iterable[tuple[str, str]]:
    try:
        source = sources.parse(settings.source)
    except UserError as problem:
        yield "source", str(problem)
        return
    if not isinstance(source, sources.GgufSource):
        yield "source", f"expected a GGUF file, as in ./model.gguf, got {settings.source!r}; other models go to vllm"
    elif not source.path.is_file():
        yield "source", f"expected a GGUF file at {source.path}, there is none"
    for name, value in settings.args.items():
        if value is False:
            yield f"args.{name}", "expected true, a value or a list, got false; llama.cpp has --no- forms for some"


def _check_all(models: Mapping[str, LlamaCppModel], *_: object) -> Sequence[str]:
    if not models or find_program():
        return []
    advice = f"expected llama.cpp's {PROGRAM} on the PATH, found none; see docs/models.md"
    return [f"models.{name}.engine: {advice}" for name in models]


LLAMACPP = EngineKind(
    LlamaCppModel,
    _make,
    _check_model,
    _check_all,
    harness="benchmarks.rungs.llamacpp:HARNESS",
    rules=lambda _, __, card: LlamaCppRules(card.openapi),
)
