"""What the tests of the images share: an engine, the images that are built from the repository as it is, and models."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, litport
from tests.containers import bases
from tests.containers.engine import Engine, NoEngineError, running

KEY = "a-key-for-tests-" + secrets.token_hex(8)
# As docs/deployment.md advises: nothing can be written but the volume and /tmp, and there is no right to gain.
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--shm-size=1g")
MODELS = ("smollm2-135m-instruct", "all-minilm-l6-v2", "efficientnet-lite0")
DATA = "/var/lib/litport"


@dataclass(frozen=True)
class Builder:
    """Builds images as people do, by `make image`, on what there is to build on."""

    engine: Engine
    arguments: Mapping[str, str]

    def make(self, flavour: str, *words: str, variables: Mapping[str, str] | None = None) -> str:
        """Build the image of a flavour and return what was said; `words` are more arguments of `docker build`."""
        given = [f"--build-arg={name}={value}" for name, value in self.arguments.items()]
        command = ["make", "image", f"FLAVOUR={flavour}", f"DOCKER={self.engine.program}"]
        command += [f"{name}={value}" for name, value in (variables or {}).items()]
        done = subprocess.run(
            [*command, f"ARGS={' '.join(['--progress=plain', *given, *words])}"],
            cwd=REPOSITORY,
            env={**os.environ, **self.engine.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1500,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    try:
        with running() as engine:
            yield Builder(engine, bases.build_arguments(engine))
    except (NoEngineError, bases.NoBaseError) as problem:
        pytest.skip(f"NOT TESTED: the images, as none can be built: {problem}")


@pytest.fixture(scope="session")
def engine(builder: Builder) -> Engine:
    return builder.engine


@pytest.fixture(scope="session")
def image(builder: Builder) -> str:
    """The CPU image, by name."""
    builder.make("cpu")
    return "litport:cpu"


@pytest.fixture(scope="session")
def models(engine: Engine, image: str, model_cache: Path) -> Iterator[str]:
    """A volume with the demo's models, filled by the image's own user."""
    for model in MODELS:
        pulled = litport(
            "models", "pull", model, environ={"LITPORT_SERVER__CACHE_DIR": str(model_cache)}, timeout_s=600
        )
        assert pulled.returncode == 0, pulled.stderr
    name = "litport-tests-models"
    engine("volume", "create", name)
    copy = f"mkdir {DATA}/models && cp -r {' '.join(f'/pulled/{model}' for model in MODELS)} {DATA}/models"
    mounts = (f"--volume={name}:{DATA}", f"--volume={model_cache.resolve()}/models:/pulled:ro")
    engine("run", "--rm", *mounts, "--entrypoint=sh", image, "-c", copy)
    yield name
    engine("volume", "rm", "--force", name, check=False)


@pytest.fixture(scope="session")
def lent_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an engine mounts it at /run/secrets, with one key, for the image's user only."""
    folder = tmp_path_factory.mktemp("secrets")
    lend(folder, {"litport_auth__api_keys": KEY + "\n"})
    return folder


def lend(folder: Path, texts: Mapping[str, str]) -> None:
    """Write files of these names and texts that the image's user can read, and nobody else where that can be had."""
    root = os.geteuid() == 0
    folder.mkdir(exist_ok=True)
    files = [folder / name for name in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(text, encoding="utf-8")
    for path in (*files, folder):
        path.chmod((0o500 if root else 0o555) if path is folder else (0o400 if root else 0o444))
        if root:
            os.chown(path, 10001, 10001)


def published(engine: Engine, container: str, port: int = 8000) -> str:
    """The address under which a container's port is reached from here."""
    told = engine("port", container, str(port)).stdout
    found = re.search(r"127\.0\.0\.1:\d+", told)
    assert found is not None, told
    return f"http://{found[0]}"
