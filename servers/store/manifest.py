"""What the store knows of a model that is there: the small file `litport.json` in its folder.

It exists because a folder counts as a model only once this file is in it; it is written last. It never describes a
folder that the store did not make.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from servers.store import disk

FILE_NAME = "litport.json"


@dataclass(frozen=True)
class Fetched:
    """A folder that a source has filled, not yet a model of the store.

    `sha256` holds what was checked, by file name, before any conversion; `revision` is the hub's commit.
    """

    folder: Path
    source: str
    revision: str | None
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class StoredFile:
    """A file of a model as it was when it was pulled (and converted)."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredModel:
    """A model of the store. `source` is what was asked for, `used_source` where it came from, `pulled_at` ISO 8601.

    `sha256` holds what was checked on the way here, `files` what came of it, by path below the folder; it is empty in
    what was pulled before files were noted.
    """

    path: Path
    source: str
    used_source: str
    revision: str | None
    sha256: Mapping[str, str]
    size_bytes: int
    pulled_at: str
    files: Mapping[str, StoredFile] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name in the store."""
        return self.path.name


def write(fetched: Fetched, source: str) -> None:
    """Make the fetched folder a model: write its manifest."""
    own = fetched.folder / FILE_NAME  # there already when an earlier attempt ended right here
    paths = [path for path in sorted(fetched.folder.rglob("*")) if path.is_file() and path != own]
    files = {
        str(path.relative_to(fetched.folder)): StoredFile(path.stat().st_size, disk.sha256(path)) for path in paths
    }
    manifest = {
        "source": source,
        "used_source": fetched.source,
        "revision": fetched.revision,
        "sha256": dict(fetched.sha256),
        "size_bytes": sum(file.size_bytes for file in files.values()),
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: dataclasses.asdict(file) for name, file in files.items()},
    }
    own.write_text(json.dumps(manifest, indent=2) + "\n")


def read(folder: Path) -> StoredModel | None:
    """The model in this folder; None when there is none, that is, no whole manifest."""
    try:
        entries = json.loads((folder / FILE_NAME).read_text())
        files = {name: StoredFile(**file) for name, file in entries.pop("files", {}).items()}
        return StoredModel(path=folder, files=files, **entries)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        return None
