"""The commands `litport models list|pull|rm|path`.

Results go to standard output, progress to standard error: as a bar on a terminal, as plain lines elsewhere.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import UserError
from servers.store import damage, disk
from servers.store.catalog import CATALOG
from servers.store.manifest import StoredModel
from servers.store.progress import Progress, Report
from servers.store.store import Store

_TEXT = 16  # columns of a terminal that the last column of a table needs


def run(action: str, source: str, cache_dir: Path) -> None:
    """One of the commands; `list` needs no source. Raises UserError."""
    if action == "list":
        list_models(cache_dir)
    else:
        {"pull": pull_model, "rm": remove_model, "path": model_path}[action](source, cache_dir)


def list_models(cache_dir: Path) -> None:
    """Print the catalog and the models of the store, one a line."""
    from rich.console import Console
    from rich.table import Table

    stored_models = {model.source: model for model in Store(cache_dir).list()}
    rows = [
        (
            entry.name,
            *_state(stored_models.get(entry.name)),
            f"{entry.engine} {entry.api}" if entry.api else entry.engine,
            entry.licence,
            entry.description,
        )
        for entry in CATALOG.values()
    ]
    rows += [
        (model.source, *_state(model), "", "", f"pulled {model.pulled_at[:10]}")
        for model in stored_models.values()
        if model.source not in CATALOG
    ]
    heading = ("MODEL", "ON DISK", "REVISION", "ENGINE", "LICENCE", "WHAT")
    console = Console()
    if not console.is_terminal:
        sys.stdout.writelines("\t".join(row) + "\n" for row in [heading, *rows])
        return
    # On a narrow terminal the columns that matter least go first; what is left folds.
    columns = list(range(len(heading)))
    for title in ("REVISION", "LICENCE", "ENGINE"):
        if (
            sum(max(len(row[column]) for row in [heading, *rows]) + 2 for column in columns[:-1]) + _TEXT
            > console.width
        ):
            columns.remove(heading.index(title))
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(heading[column], no_wrap=0 < column < len(heading) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    console.print(table)


def pull_model(source: str, cache_dir: Path) -> None:
    """Pull or mend `source` with a display of the progress, and print its folder. Raises UserError."""
    with _progress_display() as report:
        path = Store(cache_dir).pull(source, report, mend=True)
    sys.stdout.write(f"{path}\n")


def remove_model(source: str, cache_dir: Path) -> None:
    """Remove `source` from the store and print the freed space. Raises UserError when it is not there."""
    sys.stdout.write(f"removed {source}, {disk.human(Store(cache_dir).remove(source))} freed\n")


def model_path(source: str, cache_dir: Path) -> None:
    """Print the folder of `source`. Raises UserError when it has not been pulled."""
    path = Store(cache_dir).find(source)
    if path is None:
        raise UserError(f"{source} is not here yet; run: litport models pull {source}")
    sys.stdout.write(f"{path}\n")


def _state(model: StoredModel | None) -> tuple[str, str]:
    """The size on disk, and the commit or version; every start uses this one until it is removed."""
    if model is None:
        return "not pulled", ""
    size = "damaged" if damage.in_stored(model.path, model.files) else disk.human(model.size_bytes)
    version = model.used_source.partition("==")[2]  # of a wheel
    return size, model.revision[:12] if model.revision else version


@contextmanager
def _progress_display() -> Iterator[Report]:
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("checking", total=None)
        phase = "checking"

        def show(event: Progress) -> None:
            nonlocal task, phase
            if event.message:
                bars.console.print(event.message, markup=False, highlight=False)
            if event.phase != phase:  # a bar without a total moves to and fro, and one that has a total keeps it
                bars.remove_task(task)
                task, phase = bars.add_task(event.phase, total=None), event.phase
            bars.update(task, completed=event.done_bytes or 0, total=event.total_bytes)

        yield show


def _plain_lines() -> Callable[[Progress], None]:
    """Write every message, and a line for each tenth of the bytes."""
    printed_tenths = 0

    def show(event: Progress) -> None:
        nonlocal printed_tenths
        if event.message:
            printed_tenths = 0
            sys.stderr.write(f"{event.message}\n")
        if event.done_bytes is None or not event.total_bytes:
            return
        tenths = 10 * event.done_bytes // event.total_bytes
        if tenths > printed_tenths:
            printed_tenths = tenths
            sys.stderr.write(f"{disk.human(event.done_bytes)} of {disk.human(event.total_bytes)}\n")

    return show
