"""`litport bench run|load|compare`: what the command line calls.

Progress goes to standard error; tables, and as the last line one JSON object, to standard output. The exit status is 1
when a result is not valid or falls below what was asked.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from benchmarks import comparison, ladder, run
from benchmarks.ladder import Course
from benchmarks.report import terminal
from benchmarks.result import write_requests
from benchmarks.run import Plan, Report
from benchmarks.rungs import scrape
from benchmarks.rungs.base import ServerRung
from benchmarks.rungs.process import RungError
from configs.errors import UserError
from configs.loading import LoadedSettings
from configs.settings import VllmModel

# Of the tables where there is no terminal, whose width would be 80.
_WIDTH = 150


def run_recipe(loaded: LoadedSettings, out: Path, *, require_parity: bool, confirm: bool) -> int:
    """Climb the ladder of the recipe's model and write the result into the folder `out`."""
    settings = loaded.settings
    plan = Plan(settings, run.choose(settings), sys.argv, require_parity, confirm)
    _make(out)
    with _progress() as say:
        try:
            found = run.run(plan, out, say)
        except RungError as problem:
            raise UserError(f"the run was given up: {problem}") from None
    return _finish(found, out)


def load_url(loaded: LoadedSettings, url: str, *, model: str, key: str | None, body: Any, out: Path | None) -> int:
    """Load somebody's server and print its figures; they go into the folder `out`, too, if one is given."""
    bench = loaded.settings.bench
    base, path, form = target(url, bench.workload.kind)
    kind = bench.workload.kind or ("example" if form == "json" else "tokens")
    if form == "json" and body is None:
        raise UserError(f"--body: expected the JSON request to send to {path}")
    if out is not None:
        _make(out)
    # Of the model nothing is known but its name; the settings only have to say that it is not one of ours.
    settings = loaded.settings.model_copy(update={"models": {model: VllmModel(engine="vllm", source=model)}})
    course = Course(bench, bench.workload.model_copy(update={"kind": kind}), body)
    started_at = time.time()
    with _progress() as say:
        try:
            climbs = ladder.climb(lambda: [_url_rung(base, path, form, model, key)], course, say, bench.passes)
        except (RungError, OSError) as problem:
            raise UserError(f"{url}: {problem}") from None
    if out is not None:
        write_requests(out, climbs)
    found = Report(Plan(settings, model, sys.argv), course, None, climbs).document(started_at, None, None)
    return _finish(found, out)


def target(url: str, kind: str | None) -> tuple[str, str, str]:
    """Address, path and form of the requests that a URL stands for. Raises UserError when it is none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"expected a URL such as http://127.0.0.1:8000, got {url!r}")
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    if path in ("", "/v1", "/v1/completions", "/v1/chat/completions"):
        return base, "/v1/completions", "completions"
    if path.endswith("/embeddings"):
        return base, path, "embeddings"
    forms = {"images": "image", "tokens": "causal_lm", "shared-prefix": "causal_lm", "chat": "causal_lm"}
    return base, path, forms.get(kind or "", "json")


def compare(one: Path, other: Path, fail_below: float | None) -> int:
    """Print B's throughput over A's for each rung; status 1 when one's whole interval is below `fail_below`."""
    ratios = comparison.compare(one, other)
    below = [ratio for ratio in ratios if fail_below is not None and ratio.high < fail_below]
    for ratio in ratios:
        words = f"{ratio.rung} ({ratio.users} users): {ratio.ratio:.3f} (95 %: {ratio.low:.3f} to {ratio.high:.3f})"
        print(f"{words}{'  below ' + str(fail_below) if ratio in below else ''}")
    print(json.dumps({"ratios": [vars(ratio) for ratio in ratios], "passed": not below}))
    return 1 if below else 0


def _finish(found: Mapping[str, Any], out: Path | None) -> int:
    from benchmarks import report

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    terminal.show(found, console)
    if out is not None:
        (out / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (out / "report.md").write_text(report.markdown(found), encoding="utf-8")
        (out / "report.html").write_text(report.html(found), encoding="utf-8")
        console.print(f"\n{out / 'report.html'}")
    print(json.dumps(summary(found, out)))
    return 0 if found["valid"] else 1


def summary(found: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """The result in one line."""
    return {
        "model": found["model"],
        "valid": found["valid"],
        "throughput_per_s": {f"{rung['name']}@{rung['users']}": terminal.throughput(rung) for rung in found["rungs"]},
        "findings": [f"{finding['rung']}: {finding['rule']}" for finding in found["findings"]],
        "verdict": found["verdict"]["summary"] if found["verdict"] else None,
        "result": None if out is None else str(out / "result.json"),
    }


def _url_rung(base: str, path: str, form: str, model: str, key: str | None) -> ServerRung:
    return ServerRung(
        base,
        base,
        form,
        path,
        {"completions": "events", "causal_lm": "lines"}.get(form, "whole"),
        model,
        Path("unused"),  # nothing is started, so nothing is logged
        series=lambda: (scrape.read(f"{base}/metrics"), None),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


def _make(out: Path) -> None:
    if (out / "result.json").exists():
        raise UserError(f"--out: {out} holds a result already; name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"--out: cannot make the folder {out}: {problem.strerror}") from None


def _progress() -> AbstractContextManager[Callable[[str], None]]:
    """Says each step: in place on a terminal, a line each elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        return _status(console)
    return nullcontext(lambda words: print(words, file=sys.stderr, flush=True))


@contextmanager
def _status(console: Console) -> Iterator[Callable[[str], None]]:
    with console.status("") as status:
        yield status.update
