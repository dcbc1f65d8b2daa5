"""What models took in memory, kept beside the store, so that the next platform need not estimate it.

A size counts for the same model with the same settings of its engine; every load measures it anew.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from configs.settings import ModelSettings

# Of the settings that every model has, those that say what its processes hold.
_COMMON = {"engine", "source", "env", "replicas"}
_CHANGE = 0.01  # a smaller one is not written


class SizeRecord:
    """The size of one model, in the file of all of them. Several platforms may share it; the last one to write wins."""

    def __init__(self, file: Path, name: str, settings: ModelSettings) -> None:
        own = set(type(settings).model_fields) - set(ModelSettings.model_fields) | _COMMON
        text = json.dumps(settings.model_dump(mode="json", include=own), sort_keys=True)
        self._key = f"{name} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self._file = file

    def read(self) -> int | None:
        """What the model took, in bytes; None when it was never measured."""
        size_bytes = self._sizes().get(self._key)
        return size_bytes if isinstance(size_bytes, int) and size_bytes > 0 else None

    def write(self, size_bytes: int) -> None:
        """Keep what the model takes. A file that cannot be written is no problem: the next platform estimates."""
        known_bytes = self.read()
        if known_bytes is not None and abs(known_bytes - size_bytes) <= _CHANGE * known_bytes:
            return
        part = self._file.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({**self._sizes(), self._key: size_bytes}, indent=1))
            part.replace(self._file)

    def _sizes(self) -> dict[str, object]:
        try:
            sizes = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return sizes if isinstance(sizes, dict) else {}
