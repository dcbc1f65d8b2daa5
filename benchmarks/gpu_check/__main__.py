"""Runs the parts of the GPU check, each in processes of its own and within its time, and writes what they found.

    python -m benchmarks.gpu_check --out results/gpu-check

The status is 0 when nothing failed; a part that this machine cannot run is "not run". Without vLLM all parts together
take at most eight minutes. `--rehearse` runs the models on the processor, to try the check where there is no card.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.gpu_check import report
from benchmarks.gpu_check.card import Context
from benchmarks.gpu_check.check import NotRunError, Recorder, outcome_of, read_checks
from benchmarks.gpu_check.report import PartReport
from servers.processes.group import ProcessGroup
from servers.processes.interpreter import module_argv
from servers.processes.reaper import Reaper

_NOT_RUN_STATUS = 4
_LOG_TAIL = 500


@dataclass(frozen=True)
class Part:
    """A module of this package with a function `run`, and how long it may take."""

    module: str
    name: str
    limit_s: float


PARTS = (
    Part("telemetry", "telemetry against known load", 80),
    Part("serving", "LitServe on the card", 110),
    Part("ladder", "the ladder on the card", 265),
    Part("machine", "doctor and peaks", 20),
    Part("language_models", "vLLM on the card", 600),
)


def main() -> int:
    """Run all parts, or with --part one of them. Returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/gpu-check"), help="folder of the report")
    parser.add_argument("--rehearse", action="store_true", help="run the models on the processor")
    parser.add_argument("--picture-model", default="efficientnet-lite0", help="the image classifier's source")
    parser.add_argument("--part", choices=[part.module for part in PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--checks", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    context = Context("cpu" if options.rehearse else "cuda", options.picture_model)
    if options.part:
        return _run_here(options.part, options.checks, context)
    started_at_s = time.time()
    options.out.mkdir(parents=True, exist_ok=True)
    with Reaper(Path(tempfile.mkdtemp(prefix="litport-gpu-check-"))) as reaper:  # which removes the folder
        parts = [run_apart(part, context, options.out, reaper) for part in PARTS]
    document = report.conclude(started_at_s, parts, options.rehearse)
    (options.out / "gpu-check.json").write_text(report.json_text(document), encoding="utf-8")
    (options.out / "gpu-check.md").write_text(report.markdown(document), encoding="utf-8")
    print(report.markdown(document))
    return 1 if document.failed else 0


def _run_here(name: str, checks: Path, context: Context) -> int:
    try:
        import_module(f"benchmarks.gpu_check.{name}").run(Recorder(checks), context)
    except NotRunError as problem:
        print(problem, file=sys.stderr)
        return _NOT_RUN_STATUS
    except Exception as problem:
        traceback.print_exc()
        Recorder(checks).fail("the part runs to its end", f"{type(problem).__name__}: {problem}"[:_LOG_TAIL])
        return 1
    return 0


def run_apart(part: Part, context: Context, out: Path, reaper: Reaper) -> PartReport:
    """Run a part in a process group of its own, which ends with it, and report its checks."""
    print(f"{part.name}: at most {part.limit_s:g} s", file=sys.stderr, flush=True)
    checks, log_file = out / f"{part.module}.jsonl", out / f"{part.module}.log"
    checks.unlink(missing_ok=True)
    arguments = [f"--part={part.module}", f"--checks={checks}", f"--picture-model={context.picture_model}"]
    argv = module_argv("benchmarks.gpu_check", *arguments, *(() if context.on_card else ("--rehearse",)))
    begin_s = time.monotonic()
    reason, status = "", None
    with log_file.open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        reaper.track(process.pid)
        try:
            status = process.wait(part.limit_s)
        except subprocess.TimeoutExpired:
            reason = f"it did not end within {part.limit_s:g} s"
            Recorder(checks).fail("the part ends in time", reason)
        finally:
            ProcessGroup(process.pid).kill()
            process.wait()
            reaper.forget(process.pid)
    if status == _NOT_RUN_STATUS:
        reason = log_file.read_text(encoding="utf-8").strip()[-_LOG_TAIL:]
    elif status and outcome_of(read_checks(checks)) != "failed":
        Recorder(checks).fail("the part runs to its end", f"status {status}; see {log_file.name}")
    entries = read_checks(checks)
    return PartReport(
        part.name, outcome_of(entries), round(time.monotonic() - begin_s, 1), part.limit_s, reason, entries
    )


if __name__ == "__main__":
    sys.exit(main())
