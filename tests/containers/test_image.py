"""What is in the CPU image: its size by layer, nothing secret, nothing that only a build needs, models on request."""

import json
import secrets
from pathlib import Path

import pytest

from litport import VERSION
from tests.containers import layers, served
from tests.containers.bases import STAND_IN
from tests.containers.conftest import Builder
from tests.containers.engine import Engine
from tests.containers.layers import Contents
from tests.containers.served import serving

pytestmark = pytest.mark.long

MOST_BYTES = 2_500_000_000
# That the search finds what is there.
IN_ONE_FILE = b"it does not know those of a recipe or an option"
BAKED = "all-minilm-l6-v2"
WITH_MODEL = "litport-tests:with-model"


@pytest.fixture(scope="module")
def contents(engine: Engine, image: str) -> Contents:
    return layers.read(engine, image)


def test_the_image_is_small(contents: Contents, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nlitport:cpu by layer\n{contents.table()}")
    assert contents.size_bytes < MOST_BYTES


def test_no_layer_and_no_history_holds_a_secret(contents: Contents) -> None:
    assert contents.findings == []


def test_a_token_that_is_lent_to_a_build_is_in_no_layer(builder: Builder, tmp_path: Path) -> None:
    token = "hf_" + secrets.token_hex(17)
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    builder.make("cpu", f"--secret=id=hf_token,src={file}", variables={"MODELS": BAKED, "TAG": WITH_MODEL})
    [finding] = layers.read(builder.engine, WITH_MODEL, (token.encode(), IN_ONE_FILE)).findings
    assert finding.endswith(f"opt/litport/healthcheck.py: {IN_ONE_FILE.decode()}")


def test_a_model_in_the_image_is_served_without_any_network(builder: Builder, image: str) -> None:
    builder.make("cpu", variables={"MODELS": BAKED, "TAG": WITH_MODEL})
    options = ("--network=none", "--env=LITPORT_AUTH__OPEN_TO_NETWORK=true")
    command = ("serve", BAKED)
    with serving(builder.engine, WITH_MODEL, "litport-tests-baked", *options, command=command) as container:
        assert served.start(container) == ["starting", "healthy"]
        assert "downloading" not in container.logs()
        assert container.engine("stop", "--time=60", container.name).stdout.strip() == container.name
        assert container.state()["ExitCode"] == 0


def test_labels_say_what_it_is(engine: Engine, image: str) -> None:
    labels = engine.inspect(image)["Config"]["Labels"]
    said = {name.removeprefix("org.opencontainers.image."): text for name, text in labels.items()}
    assert (said["title"], said["version"], said["licenses"]) == ("Litport", VERSION, "Apache-2.0")
    assert len(said["revision"]) == 40
    assert said["created"]
    assert engine("run", "--rm", image, "version").stdout == f"litport {VERSION}\n"


def test_no_compiler_and_no_cache_is_left(engine: Engine, image: str) -> None:
    program = (
        "import json, pathlib, shutil\n"
        "tools = list(filter(shutil.which, ('cc', 'gcc', 'g++', 'clang', 'ld', 'make', 'nvcc', 'curl', 'git')))\n"
        "folders = ['/root/.cache', '/var/lib/apt/lists', '/var/cache/apt', '/build', '/tmp', '/var/lib/litport']\n"
        "left = [str(path) for folder in folders for path in pathlib.Path(folder).glob('*')]\n"
        "print(json.dumps([tools, left]))"
    )
    found = json.loads(engine("run", "--rm", "--user=0", "--entrypoint=python", image, "-c", program).stdout)
    assert found == [[], []]


def test_it_runs_as_one_fixed_user_whose_data_is_its_own(engine: Engine, image: str) -> None:
    config = engine.inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert list(config["Volumes"]) == ["/var/lib/litport"]
    told = engine("run", "--rm", "--entrypoint=stat", image, "--format=%u:%g %a", "/var/lib/litport").stdout
    assert told.strip() == "10001:10001 750"


def test_the_cuda_image_builds_as_far_as_this_machine_goes(builder: Builder) -> None:
    # On a stand-in this proves the steps and not NVIDIA's image; the packages of the lock are 8.5 GB and are not built.
    given = [f"--build-arg={name}={value}" for name, value in builder.arguments.items()]
    words = ("--file=docker/Dockerfile", "--target=base-cuda", "--tag=litport-tests:base-cuda", ".")
    builder.engine("build", "--quiet", *given, *words, timeout_s=600)
    program = (
        "import bz2, ctypes, ctypes.util, lzma, readline, shutil, sqlite3, ssl, uuid, zlib; print(shutil.which('tini'))"
    )
    told = builder.engine(
        "run", "--rm", "--user=10001", "--entrypoint=python", "litport-tests:base-cuda", "-c", program
    )
    assert told.stdout.strip() == "/usr/bin/tini"
    if builder.arguments.get("CUDA_IMAGE") == STAND_IN:
        print("NOT TESTED: NVIDIA's base image, which cannot be reached from here")
