"""The engine of `tiny_server`: lets the real supervisor and the real front door be tested without a model."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servers.engines.base import Card, Command, Needs, post
from servers.engines.connection import Connection
from servers.engines.http_connection import HttpConnection
from servers.processes.group import Member


@dataclass
class TinyEngine:
    """Starts `argv` (by default the tiny server) with the variables `environ`. `routes` go onto the card.

    The server holds `memory_bytes` beside its own.
    """

    name: str
    routes: frozenset[str] = frozenset({"/v1/chat/completions", "/v1/responses"})
    predict_path: str | None = "/predict"
    argv: list[str] = field(default_factory=lambda: ["-m", "tests.services.tiny_server"])
    kind: str = "tiny"
    memory_bytes: int = 0
    gpu_shares: Mapping[str, float] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        environ = {"TINY_BYTES": str(self.memory_bytes), **self.environ}
        return Command([sys.executable, *self.argv, str(socket)], environ)

    def connect(self, socket: Path) -> Connection:
        return HttpConnection(socket)

    async def warm(self, connection: Connection) -> Card:
        entry = {"id": self.name, "object": "model", "created": 1, "owned_by": "tiny"}
        card = Card(self.routes, self.predict_path, (entry,))
        await self.canary(connection, card)
        return card

    async def canary(self, connection: Connection, card: Card) -> None:
        await post(connection, "/predict", {})

    def answers_in_parts(self) -> bool:
        return True

    def is_vital(self, member: Member, main_pid: int) -> bool:
        return main_pid in (member.pid, member.parent_pid)

    def needs(self, model_dir: Path | None) -> Needs:
        return Needs(1, self.memory_bytes, self.gpu_shares)
