"""Makes the pack: a folder that carries the GPU check to a machine without a network, and one script that runs it.

    python -m benchmarks.gpu_check.pack --out results/gpu-pack

It is for an image with CPython 3.12, torch, transformers and numpy, and holds the rest: Litport, the packages that the
check imports, in the versions of the lock, and an image classifier in half precision. It is at most 45 MB.
"""

import argparse
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from configs.loading import load
from requirements.lock import PACKAGE
from servers.store import Store

PYTHON = "3.12"
LARGEST_BYTES = 45_000_000
_ROOT = Path(__file__).resolve().parents[2]
_PICTURE_MODEL = "efficientnet-lite0"
# On the image already, in versions that fit each other.
_ON_THE_IMAGE = ("huggingface-hub", "numpy", "safetensors", "tokenizers", "torch", "transformers")
# Nothing that the check runs imports these: GGUF files, charts, traces, the chat client, and what only FastAPI's own
# command line, the lock's vLLM or Locust's tests ask for.
_NOT_IMPORTED = (
    *("accelerate", "gguf", "plotly", "openai", "opentelemetry-sdk", "opentelemetry-exporter-otlp"),
    *("fastapi-cli", "fastar", "pydantic-extra-types", "pytest", "setuptools"),
)
_SCRIPT = """\
#!/bin/sh
# Runs Litport's GPU check from this folder, without a network; the report goes to the folder OUT (default: report).
# It needs Python {python} with torch, transformers and numpy, as PYTHON (default: python3).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
python=${{PYTHON:-python3}}
"$python" -c '
import sys, zipfile, pathlib
if sys.version_info[:2] != ({version}):
    sys.exit("gpu-check: this pack is for Python {python}, and PYTHON is " + sys.version.split()[0])
for wheel in pathlib.Path(sys.argv[1], "wheels").glob("*.whl"):
    zipfile.ZipFile(wheel).extractall(sys.argv[2])
' "$here" "$site"
export PYTHONPATH="$site" PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
"$python" -P -m benchmarks.gpu_check --out "${{OUT:-$here/report}}" --picture-model "$here/{model}" "$@"
"""


def main() -> int:
    """Make the folder. Returns the exit status: 1 where it is too large."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/gpu-pack"), help="the folder, which is made anew")
    out: Path = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    wheels = out / "wheels"
    wheels.mkdir(parents=True)
    _download(wheels)
    shutil.rmtree(_ROOT / "build", ignore_errors=True)  # what an earlier build left would be in the wheel, too
    _pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", str(_ROOT))
    _write_model(out / _PICTURE_MODEL)
    version = ", ".join(PYTHON.split("."))
    script = out / "gpu-check.sh"
    script.write_text(_SCRIPT.format(python=PYTHON, version=version, model=_PICTURE_MODEL), encoding="utf-8")
    script.chmod(0o755)
    size_bytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size_bytes / 1e6:.1f} MB; on the machine: {out.name}/{script.name}")
    if size_bytes > LARGEST_BYTES:
        print(f"gpu-pack: expected at most {LARGEST_BYTES / 1e6:g} MB", file=sys.stderr)
        return 1
    return 0


def packed_packages(lock: str, dependencies: list[str]) -> dict[str, str]:
    """The blocks of the lock that the pack needs, by name: dependencies and what they require, less what is left out.

    A block's comment says what requires it, so the lock itself tells the graph.
    """
    left_out = {*_ON_THE_IMAGE, *_NOT_IMPORTED}
    entries = {entry["name"]: entry for entry in PACKAGE.finditer(lock) if _is_for(PYTHON, entry["marker"])}
    names = {str(canonicalize_name(Requirement(text).name)) for text in dependencies} - left_out
    while additions := {name for name in entries.keys() - names - left_out if names & _requirers(entries[name]["via"])}:
        names |= additions
    return {name: entries[name][0] for name in sorted(names)}


def _requirers(via: str) -> set[str]:
    return {line.strip(" #").removeprefix("via ") for line in via.splitlines()}


def _is_for(python: str, marker: str | None) -> bool:
    return marker is None or f"'{python}'" in marker


def _download(folder: Path) -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    blocks: Mapping[str, str] = packed_packages(
        (_ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8"), project["dependencies"]
    )
    part = folder.parent / "lock.txt"
    part.write_text("".join(blocks.values()), encoding="utf-8")
    platforms = (f"--platform=manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1))
    older = (f"--platform=manylinux{name}_x86_64" for name in ("2014", "2010", "1"))
    target = (f"--python-version={PYTHON}", *platforms, *older, "--only-binary=:all:", "--require-hashes")
    _pip("download", "--no-deps", *target, f"--dest={folder}", f"--requirement={part}")
    part.unlink()


def _write_model(folder: Path) -> None:
    """The image classifier in half precision, which takes half of the room and loads as any other."""
    from safetensors.torch import load_file, save_file

    source = Store(load().settings.server.cache_dir).pull(_PICTURE_MODEL)
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    weights = load_file(source / "model.safetensors")
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in weights.items()},
        folder / "model.safetensors",
    )


def _pip(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", command, "-q", "--disable-pip-version-check", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
