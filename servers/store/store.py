"""The store itself: `<cache_dir>/models/<name>/`, one folder a model.

It exists to make a pull all or nothing. Everything is fetched below `models/.partial/`, under a lock, and renamed into
place last, so that a killed pull leaves no model and two pulls of one source do the work once. It never looks for newer
versions of what is already there: remove it, or name a revision.
"""

import builtins
import dataclasses
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import UserError
from servers.store import damage, disk, manifest
from servers.store.errors import SourceError
from servers.store.fetch import fetch
from servers.store.manifest import StoredModel
from servers.store.progress import Progress, Report
from servers.store.sources import FolderSource, GgufSource, HubSource, Source, StoredSource, parse


class Store:
    """The models below `cache_dir`. Creating one touches nothing; several processes may use one folder."""

    def __init__(self, cache_dir: Path) -> None:
        self._root = cache_dir.expanduser().resolve() / "models"
        self._partial = self._root / ".partial"

    def find(self, source: str) -> Path | None:
        """The ready folder of `source`, without network; None when a pull has to bring it, or to say what is wrong.

        Raises UserError when `source` cannot be read.
        """
        parsed = parse(source)
        if isinstance(parsed, FolderSource):
            return None if damage.in_folder(parsed.path) else parsed.path
        try:
            model = manifest.read(self._root / parsed.slug)
        except OSError:  # the GGUF file itself is not there, or what is there may not be read
            return None
        return model.path if model and not damage.in_stored(model.path, model.files) else None

    def pull(self, source: str, on_progress: Report | None = None, *, mend: bool = False) -> Path:
        """Bring `source` here, unless it is, and return its folder. Blocks, for minutes if need be.

        With `mend`, what is here is compared with its hashes, and pulled again where it is damaged: at the commit that
        it had. Raises UserError when the source cannot be read, found or reached, when it holds nothing safe to load,
        when it is damaged, and when the disk is full or may not be written to.
        """
        report = on_progress or _ignore
        parsed = parse(source)
        try:
            path = self._pull(parsed, report, mend=mend)
        except SourceError as error:
            raise UserError(f"{source}: {error}") from None
        except OSError as error:
            raise UserError(f"{source}: {self._explain(error)}") from error
        report(Progress("ready", f"{source} is at {path}"))
        return path

    def remove(self, source: str) -> int:
        """Remove the models that were pulled as `source` (or carry this name in the store); returns the bytes freed.

        What a broken-off pull of it left goes too. Raises UserError when there is nothing of it in the store.
        """
        names = {model.name for model in self.list() if source == model.name}
        if not names:
            parsed = parse(source)
            if isinstance(parsed, FolderSource):
                raise UserError(f"{source} is a folder of your own, not of the store; remove it yourself")
            names = {model.name for model in self.list() if str(parsed) == model.source}
            if not isinstance(parsed, GgufSource):
                names.add(parsed.slug)
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

    def _pull(self, parsed: Source, report: Report, *, mend: bool) -> Path:
        if isinstance(parsed, FolderSource):
            return _checked_folder(parsed.path)
        slug = parsed.slug
        path = self._root / slug
        if self._is_whole(path, parsed, mend=mend):
            return path
        with self._locked(slug, report):
            if self._is_whole(path, parsed, mend=mend):  # another process pulled it while this one waited
                return path
            work_dir = self._partial / slug
            work_dir.mkdir(exist_ok=True)
            fetched = fetch(_pinned(parsed, manifest.read(path)), work_dir, report)
            manifest.write(fetched, str(parsed))
            disk.sync(fetched.folder)
            if path.exists():  # damaged, or without a manifest and so no model
                shutil.rmtree(path)
            fetched.folder.rename(path)
            disk.sync_one(self._root)
            shutil.rmtree(work_dir)
        return path

    def _is_whole(self, path: Path, parsed: StoredSource, *, mend: bool) -> bool:
        """Whether the model is here; one that is damaged is not when it is to be mended, and a UserError otherwise."""
        model = manifest.read(path)
        if model is None:
            return False
        seen = damage.in_content(path, model.files) if mend else damage.in_stored(path, model.files)
        if seen and not mend:
            raise UserError(f"{parsed}: {seen} (in {path}); to pull it again, run: litport models pull {parsed}")
        return not seen

    def _explain(self, error: OSError) -> str:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk of {self._root} is full; free some space and pull again"
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}"

    def _remove(self, slug: str) -> int:
        path, work_dir = self._root / slug, self._partial / slug
        if not path.exists() and not work_dir.exists():
            return 0
        with self._locked(slug, _ignore):
            work_dir.mkdir(exist_ok=True)
            if path.exists():
                # Renamed first: a half-removed model must not be taken for a whole one.
                path.rename(work_dir / f"removed-{os.getpid()}")
            freed_bytes = disk.folder_bytes(work_dir)
            shutil.rmtree(work_dir)
        return freed_bytes

    @contextmanager
    def _locked(self, slug: str, report: Report) -> Iterator[None]:
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


def _checked_folder(path: Path) -> Path:
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise UserError(f"{path}: expected a folder or a .gguf file, there is {found}")
    if seen := damage.in_folder(path):
        raise UserError(f"{path}: {seen}")
    return path


def _pinned(parsed: StoredSource, damaged: StoredModel | None) -> StoredSource:
    """What mends a model: the same source, at the commit that it had."""
    if isinstance(parsed, HubSource) and damaged:
        return dataclasses.replace(parsed, revision=damaged.revision)
    return parsed


def _ignore(_: Progress) -> None:
    return
