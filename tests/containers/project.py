"""A project of Docker Compose: the composition docker/compose.yaml on the engine that the tests have."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.containers.bases import STAND_IN
from tests.containers.conftest import Builder
from tests.containers.engine import compose

_FILE = REPOSITORY / "docker" / "compose.yaml"


@dataclass(frozen=True)
class Project:
    """Runs Docker Compose's commands on one project, of this name."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]

    def __call__(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*self.command, *words], env=self.environ, capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done


@contextlib.contextmanager
def project(
    builder: Builder, name: str, profiles: Sequence[str], variables: Mapping[str, str], folder: Path = _FILE.parent
) -> Iterator[Project]:
    """A project with these profiles and variables, in whose folder `./secrets` is; at the end nothing is left of it.

    Skips the test where Docker Compose is missing.
    """
    command = compose()
    if command is None:
        pytest.skip("NOT TESTED: the composition on an engine, as docker-compose is missing")
    command += ["--project-name", name, "--project-directory", str(folder), "--file", str(_FILE)]
    command += ["--env-file", os.devnull, *(f"--profile={profile}" for profile in profiles)]
    run = Project(name, command, {**os.environ, **builder.engine.environ, **variables})
    try:
        yield run
    finally:
        run("down", "--volumes", "--timeout=60")


def image_of(service: str) -> str:
    """The name of a service's image."""
    document: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return str(document["services"][service]["image"])


def provide(builder: Builder, service: str, stand_in: str) -> None:
    """Have the image of a service: its makers', or where there is no registry one of this Dockerfile."""
    image = image_of(service)
    if builder.arguments.get("PYTHON_IMAGE") == STAND_IN:
        builder.engine("build", "--quiet", f"--tag={image}", "-", stdin=stand_in, timeout_s=600)
    else:
        builder.engine("pull", "--quiet", image, timeout_s=600)
