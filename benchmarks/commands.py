"""`litport bench run|load|compare`: what the command line calls.

Progress goes to standard error; tables, and as the last line one JSON object, to standard output. The exit status is 1
when a result is not valid or a ratio is below its limit. Ctrl-C or SIGTERM ends a run, and keeps the passes before.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks import assessment, comparison, report, result, run
from benchmarks.course import Course
from benchmarks.environment import Environment
from benchmarks.ladder import measure_ladder, with_ceilings
from benchmarks.load.request import Endpoint, endpoint_of
from benchmarks.report import neighbours, terminal
from benchmarks.result import Result, Settings
from benchmarks.run import Plan
from benchmarks.rungs import series
from benchmarks.rungs.harness import LITPORT, row_readers
from benchmarks.rungs.process import RungError
from benchmarks.rungs.server.rung import ServerRung
from configs.bench import RAY_RUNG
from configs.errors import UserError
from configs.loading import LoadedSettings
from servers.cluster.application import applications_of

# Of the tables where there is no terminal, whose width would be 80.
_WIDTH = 150

# What a route gets by default; the tokens of somebody's embedding model are not known.
_KINDS = {"chat": "chat", "embeddings": "texts"}


def run_recipe(loaded: LoadedSettings, out: Path, *, require_parity: bool, confirm: bool) -> int:
    """Measure the ladder of the recipe's model and write the result into the folder `out`."""
    settings = loaded.settings
    if require_parity and not settings.bench.parity_prompts:
        raise UserError("--require-parity: expected bench.parity_prompts of 1 or more, got 0, which compares nothing")
    if confirm and settings.bench.rungs and LITPORT not in settings.bench.rungs:
        rungs = ", ".join(settings.bench.rungs)
        raise UserError(f"--confirm: expected litport among bench.rungs, on which advice is tried, got {rungs}")
    if any(RAY_RUNG.fullmatch(rung) for rung in settings.bench.rungs):
        applications_of(loaded)  # raises for a secret, which Ray's dashboard would show
    plan = Plan(settings, run.choose_model(settings), sys.argv, require_parity, confirm)
    _make_folder(out)
    _end_as_by_ctrl_c()
    with _progress() as report_step:
        try:
            document = run.run(plan, out, report_step)
        except RungError as problem:
            raise UserError(f"the run was given up: {problem}") from None
    return _finish(document, out)


def load_url(loaded: LoadedSettings, url: str, *, model: str, key: str | None, body: Any, out: Path | None) -> int:
    """Load somebody's server and print its figures; they go into the folder `out`, too, if one is given."""
    # There is nothing to compare answers with.
    bench = loaded.settings.bench.model_copy(update={"parity_prompts": 0})
    address, endpoint = endpoint_of(url, bench.workload.kind, body)
    if endpoint.form == "json" and body is None and bench.workload.kind != "texts":
        raise UserError(f"--body: expected the JSON request to send to {endpoint.path}")
    if endpoint.form != "json" and not isinstance(body, dict | None):
        raise UserError(f"--body: expected a JSON object for {endpoint.path}, got {body!r}")
    if out is not None:
        _make_folder(out)
    kind = "example" if body is not None else bench.workload.kind or _KINDS.get(endpoint.form, "tokens")
    course = Course.plan(bench, kind, body)
    started_at = time.time()
    _end_as_by_ctrl_c()
    with _progress() as report_step:
        try:
            rung = _url_rung(address, endpoint, model, key)
            ladder = measure_ladder(lambda: [rung], course, report_step, bench.passes)
            ladder = with_ceilings(ladder, bench.load, report_step)
        except (RungError, OSError) as problem:
            raise UserError(f"{problem}{_advice(str(problem))}") from None
    if out is not None:
        result.write_requests(out, ladder.results)
    analysis = assessment.analyse(ladder, course)
    document = result.conclude(
        command=sys.argv,
        started_at=started_at,
        model=model,
        # Only its name is known of the model.
        settings=Settings({"engine": "vllm", "source": model}, bench.model_dump(mode="json")),
        workload_digest=course.digest(),
        environment=Environment.detect(),
        rungs=analysis.rungs,
        findings=analysis.findings,
    )
    return _finish(document, out)


def _advice(problem: str) -> str:
    """What the caller can do about an answer of somebody's server."""
    if "status 401" in problem or "status 403" in problem:
        return "; --key, or OPENAI_API_KEY, gives a key"
    if "does not serve /v1/" in problem:
        return "; --bench.workload.kind texts is for embeddings, the address of a predict route and --body for others"
    return "; --model names the model" if "status 404" in problem else ""


def compare(base: Path, candidate: Path, fail_below: float | None, pairs: Sequence[tuple[str, str]] = ()) -> int:
    """Print B's throughput over A's for each rung; status 1 when a whole interval is below `fail_below`."""
    ratios = comparison.compare(base, candidate, pairs)
    below = [ratio for ratio in ratios if fail_below is not None and ratio.high < fail_below]
    for ratio in ratios:
        name = ratio.rung if ratio.rung == ratio.against else f"{ratio.against} over {ratio.rung}"
        interval = f"{ratio.ratio:.3f} (95 %: {ratio.low:.3f} to {ratio.high:.3f})"
        line = f"{name} ({neighbours.with_users(ratio.users)}): {interval} in {ratio.unit}/s"
        print(f"{line}{'  below ' + str(fail_below) if ratio in below else ''}")
        if ratio.requests_needed:
            print(f"  too few to tell 10 %: about {ratio.requests_needed} requests would (bench.workload.requests)")
    print(json.dumps({"ratios": [vars(ratio) for ratio in ratios], "passed": not below}))
    return 1 if below else 0


def _finish(document: Result, out: Path | None) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    terminal.show(document, console)
    if out is not None:
        result.write(out, document)
        (out / "report.md").write_text(report.markdown(document), encoding="utf-8")
        (out / "report.html").write_text(report.html(document), encoding="utf-8")
        console.print(f"\n{out / 'report.html'}")
    print(json.dumps(summary(document, out)))
    return 0 if document.valid else 1


def summary(document: Result, out: Path | None) -> dict[str, Any]:
    """The result in one line."""
    rates = [(rung, neighbours.throughput(document, rung)) for rung in document.rungs]
    return {
        "model": document.model,
        "valid": document.valid,
        "throughput_unit": neighbours.throughput_unit(document),
        "throughput_per_s": {
            rung.name if rung.users is None else f"{rung.name}@{rung.users}": rate.value if rate else None
            for rung, rate in rates
        },
        "findings": [f"{finding.rung}: {finding.rule}" for finding in document.findings],
        "verdict": document.verdict.summary if document.verdict else None,
        "result": None if out is None else str(out / "result.json"),
    }


def _url_rung(address: str, endpoint: Endpoint, model: str, key: str | None) -> ServerRung:
    return ServerRung(
        address,
        address,
        endpoint,
        model,
        Path("unused"),  # nothing is started, so nothing is logged
        read_series=lambda: (series.read(f"{address}/metrics"), None),
        row_readers=row_readers(),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


def _end_as_by_ctrl_c() -> None:
    """Let SIGTERM, too, raise KeyboardInterrupt, which keeps the passes that are over."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _make_folder(out: Path) -> None:
    if (out / "result.json").exists():
        raise UserError(f"--out: {out} holds a result already; name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"--out: cannot make the folder {out}: {problem.strerror}") from None


def _progress() -> AbstractContextManager[Callable[[str], None]]:
    """Shows each step: in place on a terminal, a line each elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        return _status(console)
    return nullcontext(lambda line: print(line, file=sys.stderr, flush=True))


@contextmanager
def _status(console: Console) -> Iterator[Callable[[str], None]]:
    with console.status("") as status:
        yield lambda line: status.update(escape(line))
