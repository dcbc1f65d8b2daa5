"""The manifest of a stored model: the small file `litport.json` in its folder.

It is written last, and a folder counts as a model only when it has one.
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
class FetchedModel:
    """A folder that a source has filled and that is not yet a model of the store.

    `sha256` holds the checked hashes by file name, from before any conversion; `revision` is the hub's commit.
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
    """A model of the store, pulled as `source` and fetched from `used_source`; `pulled_at` is ISO 8601.

    `sha256` holds the hashes that were checked during the download. `files` are those of the folder by their path, and
    empty for a model that an old version of Litport pulled.
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


def write(model: FetchedModel, source: str) -> None:
    """Make the folder a model of the store: write its manifest."""
    manifest_file = model.folder / FILE_NAME  # exists already when an earlier attempt ended right here
    paths = [path for path in sorted(model.folder.rglob("*")) if path.is_file() and path != manifest_file]
    files = {str(path.relative_to(model.folder)): StoredFile(path.stat().st_size, disk.sha256(path)) for path in paths}
    manifest = {
        "source": source,
        "used_source": model.source,
        "revision": model.revision,
        "sha256": dict(model.sha256),
        "size_bytes": sum(file.size_bytes for file in files.values()),
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {name: dataclasses.asdict(file) for name, file in files.items()},
    }
    manifest_file.write_text(json.dumps(manifest, indent=2) + "\n")


def read(folder: Path) -> StoredModel | None:
    """The model in this folder; None when it has no complete manifest."""
    try:
        entries = json.loads((folder / FILE_NAME).read_text())
        files = {name: StoredFile(**file) for name, file in entries.pop("files", {}).items()}
        return StoredModel(path=folder, files=files, **entries)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        return None
