"""The store itself: `<cache_dir>/models/<name>/`, one folder a model.

A pull is all or nothing: it fetches below `models/.partial/`, under a lock, and renames the folder last. A killed pull
leaves no model, and two pulls of one source do the work once. A pull does not look for newer versions of a stored
model; for a newer one, remove the model or name a revision.
"""

import builtins
import dataclasses
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import UserError
from servers.store import damage, disk, manifest, merge
from servers.store.errors import SourceError
from servers.store.fetch import fetch
from servers.store.manifest import StoredModel
from servers.store.progress import Progress, Report
from servers.store.sources import FolderSource, GgufSource, HubSource, MergedSource, Source, StoredSource, parse


class Store:
    """The models below `cache_dir`. The constructor touches no file; several processes may use one folder."""

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir.expanduser().resolve() / "models"
        self._partial = self._root / ".partial"

    def find(self, source: str) -> Path | None:
        """The ready folder of `source`, without network; None when it needs a pull, which also reports any problem.

        Raises UserError when `source` cannot be parsed.
        """
        parsed_source = parse(source)
        if isinstance(parsed_source, FolderSource):
            return None if damage.in_folder(parsed_source.path) else parsed_source.path
        try:
            model = manifest.read(self._root / self._slug(parsed_source))
        except OSError:  # the GGUF file, or the adapter, does not exist or may not be read
            return None
        return model.path if model and not damage.in_stored(model.path, model.files) else None

    def pull(self, source: str, on_progress: Report | None = None, *, mend: bool = False) -> Path:
        """Pull `source`, unless it is in the store, and return its folder. Blocks, for minutes if needed.

        With `mend`, the hashes of a stored model are compared, and a damaged one is pulled again, by its hub name at
        the same commit.

        Raises UserError when the source cannot be parsed, found or reached, when it holds nothing safe to load, when it
        is damaged, and when the disk is full or may not be written to.
        """
        report = on_progress or _ignore
        parsed_source = parse(source)
        try:
            path = self._pull(parsed_source, report, mend=mend)
        except SourceError as error:
            raise UserError(f"{source}: {error}") from None
        except OSError as error:
            raise UserError(f"{source}: {self._explain(error)}") from error
        report(Progress("ready", f"{source} is at {path}"))
        return path

    def remove(self, source: str) -> int:
        """Remove the models that were pulled as `source`, or have this name in the store; returns the freed bytes.

        The files of an interrupted pull are removed, too. Raises UserError when the store has nothing of this source.
        """
        names = {model.name for model in self.list() if source == model.name}
        if not names:
            parsed_source = parse(source)
            if isinstance(parsed_source, FolderSource):
                raise UserError(f"{source} is a folder of your own, not of the store; remove it yourself")
            names = {model.name for model in self.list() if str(parsed_source) == model.source}
            if not isinstance(parsed_source, GgufSource | MergedSource):
                names.add(parsed_source.slug)
        freed_bytes = sum(self._remove(name) for name in names)
        if not freed_bytes:
            raise UserError(f"{source} is not in the store ({self._root})")
        return freed_bytes

    def list(self) -> "builtins.list[StoredModel]":
        """The models that are ready, by name."""
        if not self._root.is_dir():
            return []
        try:
            models = [manifest.read(folder) for folder in sorted(self._root.iterdir())]
        except OSError as error:
            raise UserError(f"the store cannot be read: {self._explain(error)}") from error
        return [model for model in models if model]

    def _pull(self, source: Source, report: Report, *, mend: bool) -> Path:
        if isinstance(source, FolderSource):
            _check_folder(source.path)
            return source.path
        if isinstance(source, MergedSource):
            base_dir, adapter_dir = (self._pull(part, report, mend=mend) for part in (source.base, source.adapter))
        slug = self._slug(source)
        path = self._root / slug
        if self._is_whole(path, source, mend=mend):
            return path
        with self._lock(slug, report):
            if self._is_whole(path, source, mend=mend):  # another process pulled it while this one waited
                return path
            work_dir = self._partial / slug
            work_dir.mkdir(exist_ok=True)
            if isinstance(source, MergedSource):
                model = merge.fetch(source, base_dir, adapter_dir, work_dir, report)
            else:
                model = fetch(_pin(source, manifest.read(path)), work_dir, report)
            manifest.write(model, str(source))
            disk.sync(model.folder)
            if path.exists():  # damaged, or without a manifest and so no model
                shutil.rmtree(path)
            model.folder.rename(path)
            disk.sync_one(self._root)
            shutil.rmtree(work_dir)
        return path

    def _slug(self, source: StoredSource | MergedSource) -> str:
        """The name of its folder. Raises OSError where it depends on files that are not here."""
        if not isinstance(source, MergedSource):
            return source.slug
        stem = re.sub(r"[^A-Za-z0-9.-]+", "-", str(source.adapter)).strip("-.")[-40:]
        identity = "\n".join(self._identity(part) for part in (source.base, source.adapter))
        return f"merged--{stem}--{hashlib.sha256(identity.encode()).hexdigest()[:12]}"

    def _identity(self, source: StoredSource | FolderSource) -> str:
        """The source and its content: hashes of a stored model, sizes and dates of the files in a folder."""
        if isinstance(source, FolderSource):
            stats = [(path.name, path.stat()) for path in sorted(source.path.iterdir()) if path.is_file()]
            content = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
        else:
            model = manifest.read(self._root / source.slug)
            if model is None:
                raise FileNotFoundError(errno.ENOENT, "not pulled", str(source))
            content = [f"{name} {file.sha256}" for name, file in model.files.items()]
        return "\n".join((str(source), *content))

    def _is_whole(self, path: Path, source: StoredSource | MergedSource, *, mend: bool) -> bool:
        """Whether the model is in the store without damage. Raises UserError for damage, unless with `mend`."""
        model = manifest.read(path)
        if model is None:
            return False
        problem = damage.in_content(path, model.files) if mend else damage.in_stored(path, model.files)
        if problem and isinstance(source, MergedSource):
            return False  # both parts are here to make it anew
        if problem and not mend:
            raise UserError(f"{source}: {problem} (in {path}); to pull it again, run: litport models pull {source}")
        return not problem

    def _explain(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of {self._root} is full; free some space and pull again"
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}"

    def _remove(self, slug: str) -> int:
        path, work_dir = self._root / slug, self._partial / slug
        if not path.exists() and not work_dir.exists():
            return 0
        with self._lock(slug, _ignore):
            work_dir.mkdir(exist_ok=True)
            if path.exists():
                # Renamed first: a half-removed model must not be taken for a whole one.
                path.rename(work_dir / f"removed-{os.getpid()}")
            freed_bytes = disk.folder_bytes(work_dir)
            shutil.rmtree(work_dir)
        return freed_bytes

    @contextmanager
    def _lock(self, slug: str, report: Report) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self._partial.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._partial / f".{slug}.lock")  # no slug begins with a dot
        try:
            lock.acquire(blocking=False)
        except Timeout:
            report(Progress("checking", f"another process is busy with {slug}; waiting for it"))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        actual = "a file" if path.exists() else "nothing"
        raise UserError(f"{path}: expected a folder or a .gguf file, there is {actual}")
    if problem := damage.in_folder(path):
        raise UserError(f"{path}: {problem}")


def _pin(source: StoredSource, model: StoredModel | None) -> StoredSource:
    """The source at the commit of the damaged model that the pull mends."""
    if isinstance(source, HubSource) and model:
        return dataclasses.replace(source, revision=model.revision)
    return source


def _ignore(_: Progress) -> None:
    return
