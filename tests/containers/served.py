"""One container with the demo, as hardened as its documentation advises, and what happens to its health."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.containers.conftest import DATA, HARDENED, published
from tests.containers.engine import Engine

_START_S = 420.0


@dataclass(frozen=True)
class Served:
    """A running container: its name, its address from outside, and the engine it runs in."""

    engine: Engine
    name: str
    url: str

    def state(self) -> dict[str, Any]:
        """Docker's own word on it: Status, ExitCode, Health."""
        return dict(self.engine.inspect(self.name)["State"])

    def health(self) -> str:
        return str(self.state()["Health"]["Status"])

    def python(self, program: str) -> str:
        """Run a program inside, and return what it printed."""
        return self.engine("exec", self.name, "python", "-c", program).stdout

    def logs(self) -> str:
        done = self.engine("logs", self.name)
        return done.stdout + done.stderr

    def until(self, health: str, timeout_s: float) -> list[str]:
        """Wait for a health, and return the different ones that were seen on the way, in their order."""
        seen: list[str] = []
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = self.state()
            if [state["Health"]["Status"]] != seen[-1:]:
                seen.append(str(state["Health"]["Status"]))
            if seen[-1] == health:
                return seen
            if state["Status"] != "running":
                break
            time.sleep(0.5)
        raise AssertionError(
            f"{self.name}: expected {health} within {timeout_s:g} s, saw {seen}\n{self.logs()[-6000:]}"
        )


@contextlib.contextmanager
def serving(
    engine: Engine, image: str, name: str, *options: str, command: tuple[str, ...] = (), data: str | None = None
) -> Iterator[Served]:
    """Run the image until the block ends; `data` is a volume, `options` are more of `docker run`'s."""
    engine("rm", "--force", "--volumes", name, check=False)
    volume = (f"--volume={data}:{DATA}",) if data else ()
    words = (f"--name={name}", *HARDENED, *volume, *options)
    engine("run", "--detach", *words, image, *command)
    try:
        network = engine.inspect(name)["HostConfig"]["NetworkMode"]
        yield Served(engine, name, "" if network == "none" else published(engine, name))
    finally:
        engine("rm", "--force", "--volumes", name, check=False)


def with_keys(lent_keys: Path) -> tuple[str, ...]:
    """The options that publish the port on loopback and lend the keys."""
    return ("--publish=127.0.0.1::8000", f"--volume={lent_keys}:/run/secrets:ro")


def start(served: Served) -> list[str]:
    """Wait for a container that was just started to be healthy."""
    return served.until("healthy", _START_S)
