"""A container engine for the tests: the one that this user has, or else a dockerd of our own that ends with them.

It exists because many a machine that tests has Docker's programs and no daemon. It refuses to touch what is not its
own: the dockerd that it starts has its folder, its socket and its process to itself.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SEARCHED = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/sbin"]
# Ends at once, and needs what our Dockerfile needs: BuildKit.
_PROBE = "FROM scratch AS empty\nFROM empty\nCOPY --from=empty / /\nLABEL probe=1\n"
_START_S = 30.0
_STOP_S = 60.0


class NoEngineError(Exception):
    """No engine could be had; the text says what was tried."""


@dataclass(frozen=True)
class Engine:
    """A way to reach a daemon: the program `docker` and the environment that it wants."""

    program: str
    environ: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, *words: str, check: bool = True, timeout_s: float = 120, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `docker WORDS`. Raises AssertionError with what it said when it fails, unless `check` is False."""
        done = subprocess.run(
            [self.program, *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, **self.environ},
        )
        if check and done.returncode != 0:
            said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            raise AssertionError(f"docker {' '.join(words)}: {done.returncode}\n{said}")
        return done

    def inspect(self, name: str) -> dict[str, Any]:
        """What the daemon knows of an image or a container."""
        [found] = json.loads(self("inspect", name).stdout)
        return dict(found)


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """An engine that builds with BuildKit, until the block ends. Raises NoEngineError."""
    tried: list[str] = []
    if found := _that_builds({}, tried):
        yield found
        return
    dockerd = _program("dockerd")
    if dockerd is None or os.geteuid() != 0:
        tried.append("no dockerd is installed" if dockerd is None else "a dockerd of our own needs root")
        raise NoEngineError("; ".join(tried))
    with _own_daemon(dockerd, tried) as environ:
        if found := _that_builds(environ, tried):
            yield found
            return
    raise NoEngineError("; ".join(tried))


def compose() -> list[str] | None:
    """The command of Docker Compose, where it is installed."""
    beside = Path(sys.executable).with_name("docker-compose")
    found = str(beside) if beside.exists() else _program("docker-compose")
    return [found] if found else None


def _that_builds(environ: Mapping[str, str], tried: list[str]) -> Engine | None:
    for program in dict.fromkeys(filter(None, (_in(folder, "docker") for folder in _SEARCHED))):
        engine = Engine(program, {"DOCKER_BUILDKIT": "1", **environ})
        try:
            done = engine("build", "--quiet", "-", check=False, stdin=_PROBE, timeout_s=30)
        except subprocess.TimeoutExpired:
            tried.append(f"{program}: no answer in 30 s")
            continue
        if done.returncode == 0:
            engine("rmi", "--force", done.stdout.strip(), check=False)
            return engine
        tried.append(f"{program}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    if not tried:
        tried.append("no docker is installed")
    return None


@contextlib.contextmanager
def _own_daemon(dockerd: str, tried: list[str]) -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="litport-dockerd-"))
    address = f"unix://{folder}/docker.sock"
    command = [dockerd, "-H", address, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    log = folder / "dockerd.log"
    with _bridge(tried) as bridge, log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "-p", f"{folder}/docker.pid", "--bridge", bridge], stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + _START_S
            while not (folder / "docker.sock").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            if process.poll() is not None:
                tried.append(f"{dockerd} ended: {log.read_text(errors='replace')[-1000:]}")
            yield {"DOCKER_HOST": address}
        finally:
            process.terminate()  # which ends its containers and containerd
            try:
                process.wait(timeout=_STOP_S)
            finally:
                process.kill()
                process.wait()
            _told("umount", f"{folder}/exec/netns/default")
            # It takes a minute and more, which no test waits for.
            subprocess.run(["setsid", "--fork", "rm", "-rf", str(folder)], check=False)


@contextlib.contextmanager
def _bridge(tried: list[str]) -> Iterator[str]:
    """A network of its own: docker0 belongs to another dockerd, or will."""
    name = f"ltp{os.getpid()}"
    steps = [
        ("ip", "link", "add", name, "type", "bridge"),
        ("ip", "address", "add", f"10.213.{os.getpid() % 250}.1/24", "dev", name),
        ("ip", "link", "set", name, "up"),
    ]
    try:
        if problem := next(filter(None, (_told(*step) for step in steps)), ""):
            tried.append(problem)
            raise NoEngineError("; ".join(tried))
        yield name
    finally:
        _told("ip", "link", "delete", name)


def _program(name: str) -> str | None:
    return next(filter(None, (_in(folder, name) for folder in _SEARCHED)), None)


def _in(folder: str, name: str) -> str | None:
    return shutil.which(name, path=folder) if folder else None


def _told(*command: str) -> str:
    """Run a command; returns what it complained of, and nothing where it did what it should."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return f"{command[0]} is missing"
    return "" if done.returncode == 0 else f"{' '.join(command)}: {done.stderr.strip()}"
