"""What the store's tests share: a real index of tiny wheels, a small hub, a small disk, and pulls as real processes."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers.store import Store
from tests.services.hub import Hub

REPOSITORY = Path(__file__).resolve().parents[3]
CLOSED = "http://127.0.0.1:9"  # the discard port: nothing listens


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@dataclass(frozen=True)
class Index:
    """A folder of wheels that pip takes for the only index."""

    folder: Path

    def add(self, name: str, version: str, files: Mapping[str, bytes]) -> Path:
        """Build a wheel with these files; returns its path."""
        project = name.replace("-", "_")
        info = f"{project}-{version}.dist-info"
        contents = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/licenses/LICENSE": b"Apache-2.0",
        }
        record = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
        path = self.folder / f"{project}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in {**contents, f"{info}/RECORD": record.encode()}.items():
                archive.writestr(member, content)
        return path

    @property
    def environment(self) -> dict[str, str]:
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    folder = tmp_path / "index"
    folder.mkdir()
    new_index = Index(folder)
    for key, value in new_index.environment.items():
        monkeypatch.setenv(key, value)
    return new_index


class Pull:
    """A pull in a process of its own, as the supervisor starts it."""

    def __init__(self, source: str, cache_dir: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "servers.store", source, "--cache-dir", str(cache_dir)],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Pull":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, key: str, at_least: float = 0) -> dict[str, Any]:
        """Read on until an event has a number of at least this, or a text, at `key`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.events.append(event)
            value = event.get(key)
            if isinstance(value, str) or (value is not None and value >= at_least):
                return event
        raise AssertionError(f"ended without {key!r}: {self.events}")

    def result(self) -> dict[str, Any]:
        """Read to the end; the last line."""
        assert self.process.stdout is not None
        self.events += [json.loads(line) for line in self.process.stdout]
        self.process.wait()
        return self.events[-1]

    @property
    def messages(self) -> list[str]:
        return [event["message"] for event in self.events if event.get("message")]


def pull(source: str, cache_dir: Path, **environment: str) -> Pull:
    """Pull to the end in a process of its own."""
    with Pull(source, cache_dir, **environment) as running:
        running.result()
    return running


def noise(size_bytes: int) -> bytes:
    """Bytes that neither compress nor repeat, the same in every run."""
    return hashlib.shake_256(b"litport").digest(size_bytes)


def weights(size_bytes: int) -> bytes:
    """A file of safetensors, of this size, with noise in it."""
    header_bytes = 92  # with the 8 bytes of its own length, 100
    count = size_bytes - 8 - header_bytes
    header = json.dumps({"x": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return header_bytes.to_bytes(8, "little") + header.ljust(header_bytes) + noise(count)


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own in this new folder, of this size."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    mount = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mount.returncode != 0:
        pytest.skip(f"a small disk has to be mounted, as root: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on this disk."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            continue


def obedient() -> list[str]:
    """What a command is to begin with so that permissions hold for it: root alone may read and write everything."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("these are root's tests, and without setpriv root's permissions cannot be taken away")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
