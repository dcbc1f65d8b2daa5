"""What the store knows of a model that is there: the small file `litport.json` in its folder.

It exists because a folder counts as a model only once this file is in it; it is written last. It never describes a
folder that the store did not make.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
class StoredModel:
    """A model of the store. `source` is what was asked for, `used_source` where it came from, `pulled_at` ISO 8601."""

    path: Path
    source: str
    used_source: str
    revision: str | None
    sha256: Mapping[str, str]
    size_bytes: int
    pulled_at: str

    @property
    def name(self) -> str:
        """The folder's name in the store."""
        return self.path.name


def write(fetched: Fetched, source: str) -> None:
    """Make the fetched folder a model: write its manifest."""
    manifest = {
        "source": source,
        "used_source": fetched.source,
        "revision": fetched.revision,
        "sha256": dict(fetched.sha256),
        "size_bytes": disk.folder_bytes(fetched.folder),
        "pulled_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (fetched.folder / FILE_NAME).write_text(json.dumps(manifest, indent=2) + "\n")


def read(folder: Path) -> StoredModel | None:
    """The model in this folder; None when there is none, that is, no whole manifest."""
    try:
        return StoredModel(path=folder, **json.loads((folder / FILE_NAME).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
