"""The images that the Dockerfile builds on, where no registry can be reached: Debian of the same release, made here.

It exists so that the images are built and run for real on a machine without a registry. The stand-ins hold this
machine's certificates, so what is built on them is thrown away; they refuse to leave the machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.containers.engine import Engine

DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
STAND_IN = "litport-stand-in:base"
WHEELS = "litport-stand-in:wheels"
# What python:3.11-slim-bookworm has and Debian's smallest system lacks, and this machine's ways to its indexes.
_FINISH = """set -eu
mkdir -p "$1/usr/local/share/ca-certificates"
cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true
chroot "$1" update-ca-certificates
printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > "$1/etc/pip.conf"
rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
for name in python python3 python3.11; do ln -sf /usr/bin/python3.11 "$1/usr/local/bin/$name"; done
for name in pip pip3; do ln -sf /usr/bin/pip3 "$1/usr/local/bin/$name"; done
cp /etc/apt/apt.conf.d/99* "$1/etc/apt/apt.conf.d/" 2>/dev/null || true
"""
_PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"


class NoBaseError(Exception):
    """There is no base to build on; the text says why."""


def default(argument: str) -> str:
    """The default of a build argument of the Dockerfile."""
    found = re.search(rf"^ARG {argument}=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, argument
    return found[1]


def build_arguments(engine: Engine) -> dict[str, str]:
    """The build arguments that make the Dockerfile build here; none where the registry can be reached.

    Raises NoBaseError where neither the bases nor what makes stand-ins can be had.
    """
    arguments = {}
    pulled = engine("pull", "--quiet", default("PYTHON_IMAGE"), check=False, timeout_s=300)
    if pulled.returncode != 0:
        engine("import", str(_debian()), STAND_IN, timeout_s=300)
        arguments = {"PYTHON_IMAGE": STAND_IN, "CUDA_IMAGE": STAND_IN}
    if wheels := _wheels():
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "wheels.tar")
            with tarfile.open(archive, "w") as tar:
                for wheel in wheels:
                    tar.add(wheel, arcname=wheel.name)
            engine("import", str(archive), WHEELS, timeout_s=300)
        arguments["WHEELS_IMAGE"] = WHEELS
    return arguments


def _wheels() -> list[Path]:
    """torch's CPU build, where pip is told to look in a folder for it."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    folders = dict.fromkeys(" ".join(re.findall(r"find-links='([^']*)'", told.stdout)).split())
    return [wheel for folder in folders for wheel in Path(folder).glob("torch-*+cpu-cp311-*.whl")]


def _debian() -> Path:
    """Debian as a tar, kept in the folder for temporary files, as it takes half a minute to make."""
    folder = Path(tempfile.gettempdir(), f"litport-bases-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise NoBaseError(f"{folder} is somebody else's")
    base = folder / "bookworm.tar"
    if base.exists():
        return base
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise NoBaseError("no registry can be reached, and a stand-in needs mmdebstrap and root")
    finish, draft = folder / "finish.sh", folder / "draft.tar"
    finish.write_text(_FINISH, encoding="utf-8")
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    command = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={_PACKAGES}"]
    command += [f'--customize-hook=sh {finish} "$1"', "bookworm", str(draft)]
    command += [str(sources)] if sources.exists() else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise NoBaseError(f"mmdebstrap failed: {done.stderr[-1000:]}")
    return draft.rename(base)
