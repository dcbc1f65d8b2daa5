"""What can be said of the images without building one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.containers.bases import DOCKERFILE, default

TEXT = DOCKERFILE.read_text(encoding="utf-8")
HADOLINT = next(
    filter(None, (shutil.which("hadolint", path=str(Path(sys.executable).parent)), shutil.which("hadolint"))), None
)


def stage(name: str) -> str:
    """The instructions of a stage, without comments."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return re.sub(r"^ *#.*\n", "", found[1], flags=re.MULTILINE).strip()


@pytest.mark.skipif(HADOLINT is None, reason="NOT TESTED: the Dockerfile's lint, as hadolint is missing")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([str(HADOLINT), str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_two_images_differ_in_their_packages_only() -> None:
    assert stage("cpu").replace("packages-cpu", "PACKAGES") == stage("cuda").replace("packages-cuda", "PACKAGES")


def test_ray_is_a_layer_on_either_image() -> None:
    assert stage("cpu-ray") == stage("cuda-ray")
    assert "FROM cpu AS cpu-ray\n" in TEXT
    assert "FROM cuda AS cuda-ray\n" in TEXT


@pytest.mark.parametrize("argument", ["PYTHON_IMAGE", "CUDA_IMAGE"])
def test_a_base_is_named_by_tag_and_pinned_by_digest(argument: str) -> None:
    assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", default(argument))


def test_every_package_comes_from_a_lock_by_hash() -> None:
    installs = re.findall(r"pip install [^\n]*", TEXT)
    assert installs
    assert [line for line in installs if "--require-hashes" not in line and "--no-index" not in line] == []


def test_no_build_argument_or_variable_holds_a_secret() -> None:
    named = re.findall(r"^(?:ARG|ENV) ((?:.*\\\n)*.*)", TEXT, re.MULTILINE)
    values = dict(re.findall(r"(\w+)=(\S*)", " ".join(named)))
    suspicious = {name for name in values if re.search("KEY|TOKEN|SECRET|PASSWORD", name)}
    assert suspicious == {"HF_TOKEN_PATH"}


@pytest.mark.parametrize("form", ["<<", "--link", "--exclude", "--network", "# syntax="])
def test_the_dockerfile_keeps_to_what_every_builder_understands(form: str) -> None:
    assert form not in TEXT


def test_a_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line[1:] for line in rules if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
    assert {source for line in copies for source in line.split()} == allowed


def test_one_init_starts_litport_as_a_fixed_user() -> None:
    final = stage("cpu")
    assert 'ENTRYPOINT ["tini", "--", "litport"]' in final
    assert "USER 10001:10001" in final
    assert [stage(name).count("tini") for name in ("base-cpu", "base-cuda")] == [1, 1]
