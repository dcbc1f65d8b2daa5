"""Keeps `.venv` equal to a lock; every make target that needs Python runs it first.

A `.venv` that differs from its stamp is built anew, so a set-up that was killed half way needs no repair. It gets the
newest Python of those that Litport runs on. This runs before anything is installed, so it uses the standard library
only, on any Python from 3.8 on. The CPU and the CUDA build of vLLM install the same modules, so another flavour means a
new `.venv`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
_RARE = r"/(tests?|transformers/models|plotly/graph_objs|vllm/model_executor/models)/"
STAMP = VENV / "litport-setup.json"
# Used for torch alone, and only when pip's own configuration has no CPU build: pip searches an additional index
# for every package, and tries it again for every package where it cannot be reached.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
FLAVOURS = ("cpu", "cuda")
EXTRAS = {
    "playground": "the playground",
    "runtimes": "the runtimes",
    "dev": "the tests",
    "ray": "Ray Serve",
    "redis": "shared limits",
}
PIP_LOCK_OPTIONS = ("--require-hashes", "--only-binary=:all:", "-r")


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def main() -> int:
    """Bring `.venv` up to date. Returns the exit status: 0, or 2 after the reason on stderr."""
    parser = argparse.ArgumentParser(description="Create or update .venv from the locks.")
    parser.add_argument("--flavour", choices=FLAVOURS, help="default: what .venv is, else what the machine is")
    parser.add_argument("--playground", action="store_true", help="also what the playground needs")
    parser.add_argument("--runtimes", action="store_true", help="also ONNX Runtime and OpenVINO")
    parser.add_argument("--ray", action="store_true", help="also Ray Serve")
    parser.add_argument("--redis", action="store_true", help="also the client of Redis, for shared limits of keys")
    parser.add_argument("--dev", action="store_true", help="also what the tests need, the playground included")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that pip ends, too
    # The open folder is the lock file. The pip of a killed set-up keeps it open, so the next set-up waits for it.
    turn = os.open(REQUIREMENTS, os.O_RDONLY)
    try:
        _wait_for(turn)
        requested = {**vars(options), "playground": options.playground or options.dev}
        extras = tuple(extra for extra in EXTRAS if requested[extra])
        set_up(options.flavour, extras, turn)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next run starts afresh", file=sys.stderr)
        return 130
    finally:
        os.close(turn)
    return 0


def set_up(flavour: str | None, extras: tuple[str, ...], turn: int) -> None:
    """Make `.venv` what the locks say, with these extras; `turn` is the descriptor whose lock this process holds.

    Raises SetupError where there is no Python that Litport runs on, no wheel for this machine, or pip fails.
    """
    stamp = _read_stamp()
    flavour = flavour or stamp.get("flavour") or detected_flavour()
    lock = REQUIREMENTS / f"{flavour}.txt"
    pyproject = ROOT / "pyproject.toml"
    runtime = {"root": str(ROOT), "flavour": flavour, "lock": _digest(lock)}

    before = dict(stamp)
    if not PYTHON.exists() or any(stamp.get(key) != value for key, value in runtime.items()):
        _build(flavour, lock, turn)
        stamp = _write_stamp(runtime)
    for extra in extras:
        extra_lock = REQUIREMENTS / f"{extra}.txt"
        if stamp.get(extra) != _digest(extra_lock):
            STAMP.unlink()  # a half-written package looks installed, so a set-up that is killed here starts anew
            _pip(f"{_count(extra_lock)} packages for {EXTRAS[extra]}", turn, *PIP_LOCK_OPTIONS, str(extra_lock))
            stamp = _write_stamp({**stamp, extra: _digest(extra_lock)})
    if stamp.get("project") != _digest(pyproject):
        _pip("litport itself", turn, "--no-build-isolation", "-e", ".")
        stamp = _write_stamp({**stamp, "project": _digest(pyproject)})
    if stamp != before:
        _compile()


def detected_flavour() -> str:
    """`cuda` where an NVIDIA driver answers, else `cpu`."""
    if Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    if shutil.which("nvidia-smi") and _quiet("nvidia-smi", "-L").returncode == 0:
        return "cuda"
    return "cpu"


def _build(flavour: str, lock: Path, turn: int) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        machine = f"{platform.system()} on {platform.machine()}"
        raise SetupError(f"the locks are for Linux on x86_64 and this is {machine}: use a container")
    commands = _venv_commands()  # before the old .venv is removed, which may hold the Python that runs this
    print(f"Setting up .venv ({flavour}); once, a few minutes", flush=True)
    for command, fallback in zip_longest(commands, commands[1:]):
        STAMP.unlink(missing_ok=True)  # first, as it is not true of a half-removed .venv
        shutil.rmtree(VENV, ignore_errors=True)
        creation = _quiet(*command)
        if creation.returncode != 0:
            raise SetupError(f"`{' '.join(command)}` failed:\n{creation.stdout}")
        if flavour != "cpu":
            break
        try:
            _install_torch(lock, turn)
            break
        except SetupError:  # some indexes have the CPU build of torch for one Python and lack it for a newer one
            if fallback is None:
                raise
            print(f"  once more with {fallback[0]}", flush=True)
    _pip(f"{_count(lock)} packages", turn, *PIP_LOCK_OPTIONS, str(lock))


def _install_torch(lock: Path, turn: int) -> None:
    match = re.search(r"^torch==.*(?:\n +--hash=.*)+", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise SetupError(f"{lock.name} has no hashed torch: run `make lock`")
    only_torch = VENV / "torch.txt"
    only_torch.write_text(match[0].rstrip(" \\") + "\n", encoding="utf-8")
    try:
        _pip("torch", turn, *PIP_LOCK_OPTIONS, str(only_torch))
    except SetupError as error:
        try:
            _pip(
                "torch, from PyTorch's index", turn, "--index-url", TORCH_CPU_INDEX, *PIP_LOCK_OPTIONS, str(only_torch)
            )
        except SetupError as index_error:
            raise SetupError(f"{error}\n{index_error}") from None


def pythons() -> tuple[str, ...]:
    """The Pythons that pyproject.toml allows, the newest first, such as 3.12."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', text, re.MULTILINE)
    if match is None:
        raise SetupError('pyproject.toml: requires-python: expected ">=3.A,<3.B"')
    return tuple(f"3.{minor}" for minor in reversed(range(int(match[1]), int(match[2]))))


def _venv_commands() -> list[list[str]]:
    """The commands that make `.venv`, one for each Python that is here and can make one, the newest first."""
    versions = pythons()
    probe = "import sys, ensurepip, venv; print(*sys.version_info[:2], sep='.'); print(sys.base_prefix)"
    names = [*(f"python{version}" for version in versions), "python3", sys.executable]
    bases: dict[str, str] = {}
    for result in (_quiet(name, "-c", probe) for name in names if shutil.which(name)):
        if result.returncode == 0:
            version, base = result.stdout.splitlines()[:2]
            bases.setdefault(version, base)
    commands = [
        [f"{bases[version]}/bin/python{version}", "-m", "venv", str(VENV)] for version in versions if version in bases
    ]
    if not commands and shutil.which("uv"):
        commands = [["uv", "venv", "--seed", "--python", versions[0], str(VENV)]]
    if not commands:
        raise SetupError(
            f"a Python from {versions[-1]} to {versions[0]} with its venv module was not found: "
            "install python3 and python3-venv (or uv), and try again"
        )
    return commands


def _pip(label: str, turn: int, *arguments: str) -> None:
    """Run `pip install` and show one line with a count; pip's own output appears only when it fails."""
    start_s = time.perf_counter()
    output = []
    package_count = 0
    _show(label)
    options = ("--no-deps", "--no-compile", "--no-input", "--progress-bar=off")
    with subprocess.Popen(
        [str(PYTHON), "-m", "pip", "install", *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        cwd=ROOT,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        pass_fds=(turn,),
    ) as pip:
        try:
            for line in pip.stdout or ():
                output.append(line)
                if line.startswith("Collecting "):
                    package_count += 1
                    _show(f"{label}: downloading {package_count}")
                elif line.startswith("Installing "):
                    _show(f"{label}: unpacking")
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode != 0:
        _show(f"{label}: failed\n")
        raise SetupError(f"pip failed on {label}:\n{''.join(output)}")
    _show(f"{label}: {time.perf_counter() - start_s:.0f} s\n")


def _compile() -> None:
    """Write the byte code of the packages. pip would on one core, and that of their tests, too.

    Of some large folders a process imports a file or two: those get theirs then.
    """
    start_s = time.perf_counter()
    _show("byte code")
    packages = next((VENV / "lib").glob("python3.*")) / "site-packages"
    _quiet(str(PYTHON), "-m", "compileall", "-qq", "-j0", "-x", _RARE, str(packages))  # fails for templates
    _show(f"byte code: {time.perf_counter() - start_s:.0f} s\n")


def _show(text: str) -> None:
    """Redraw the current line on a terminal; elsewhere print only the last line of a step."""
    if sys.stdout.isatty():
        print(f"\r\033[K  {text}", end="", flush=True)
    elif text.endswith("\n"):
        print(f"  {text}", end="", flush=True)


def _wait_for(turn: int) -> None:
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Waiting for another set-up of this folder to end", flush=True)
        fcntl.flock(turn, fcntl.LOCK_EX)


def _read_stamp() -> dict[str, str]:
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return stamp


def _write_stamp(stamp: dict[str, str]) -> dict[str, str]:
    draft = STAMP.with_suffix(".draft")
    draft.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    draft.replace(STAMP)
    return stamp


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _count(lock: Path) -> int:
    python = _quiet(str(PYTHON), "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout.strip()
    lines = re.findall(r"^[\w.-]+==.*", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return len([line for line in lines if " ; " not in line or f"'{python}'" in line])


def _quiet(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
