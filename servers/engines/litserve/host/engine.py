"""The worker host as a child process: its command, and the connection to its workers."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from servers.engines.base import Card, Command, get
from servers.engines.connection import Connection
from servers.engines.litserve.engine import LitServeEngine, api_spec
from servers.engines.litserve.host.answer import Policy
from servers.engines.litserve.host.connection import HostConnection
from servers.processes.group import Member
from servers.processes.interpreter import module_argv
from servers.telemetry import tracing


@dataclass(frozen=True)
class HostEngine(LitServeEngine):
    """The worker host for the model `name`; its main process writes the card, and its workers answer."""

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        """Write the specification and return the child that reads it; worker N listens on `socket` with `.N`."""
        settings = self.settings
        environ = os.environ | settings.env
        spec = {
            **api_spec(settings, model_dir),
            "name": self.name,
            "uds": str(socket),
            "card": str(self.card_file),
            "timeout": settings.timeout_s,
            "max_restarts": settings.max_restarts,
            "start_timeout_s": settings.start_timeout_s,
            "traces": tracing.is_on(environ),
        }
        spec_file = socket.with_suffix(".json")
        spec_file.write_text(json.dumps(spec))
        self.card_file.unlink(missing_ok=True)  # the connection waits for the new one
        argv = module_argv("servers.engines.litserve.host.main", str(spec_file))
        return Command(argv, {**self.environ(), **settings.env, **tracing.child_environ(self.name, environ)})

    def connect(self, socket: Path) -> Connection:  # noqa: ARG002 # the card names the sockets
        """The connection reads from the card where the workers listen."""
        settings = self.settings
        # A canary pings before it asks for a prediction, and has this time for both.
        ping_timeout_s = settings.canary_timeout_s / 2
        policy = Policy(self.name, settings.batch_timeout_s, settings.cancel_grace_s, ping_timeout_s)
        return HostConnection(self.card_file, policy, settings.timeout_s)

    async def canary(self, connection: Connection, card: Card) -> None:
        """A ping of each worker at rest, then one prediction; work that was cancelled has its own limit."""
        await get(connection, "/health")
        assert isinstance(connection, HostConnection)
        if card.example is not None and connection.is_at_rest:
            await super().canary(connection, card)

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """True for the main process, which replaces workers."""
        return member.pid == main_pid
