"""Disk space, sizes and hashes of files, and writing them through to the disk."""

import hashlib
import os
import shutil
from pathlib import Path

from configs.errors import UserError


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise UserError unless the file system of `folder` (which must exist) has `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"not enough space in {folder}: {human(needed_bytes)} needed, {human(free_bytes)} free; "
            "free some, or set server.cache_dir to a larger disk"
        )


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below `folder`, 0 when it does not exist; files may come and go meanwhile."""
    total_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total_bytes += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total_bytes


def sha256(path: Path) -> str:
    """The file's SHA-256 in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make `path`, and all below it when it is a folder, survive a power cut."""
    for parent, _, names in os.walk(path):
        for name in names:
            sync_one(Path(parent) / name)
        sync_one(Path(parent))


def sync_one(path: Path) -> None:
    """Make this file's bytes, or this folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def human(size_bytes: int) -> str:
    """A size for people, in decimal units: `92.9 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
