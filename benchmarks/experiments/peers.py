"""A built-in LitAPI in Litport, in other servers, and in a loop without any.

    python -m benchmarks.experiments.peers embedding|image --python PYTHON [--runtime onnxruntime] [--precision float32]

All have the same code, runtime, precision, batches and allocator settings, each with two workers of one thread. One
after the other starts, answers 16 users and ends, in an order and back (A B C D E E D C B A): drift of the machine
cancels, and each block has a start of its own, since one differs from the next by several percent. PYTHON is an
interpreter with those peers that are asked for (mosec, nvidia-pytriton, bentoml); it finds the packages of this
environment, such as the runtime, behind its own. `loop` is the best of several batch sizes and of one or two processes,
tried first, or what `--loop` says.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.experiments import peer_servers
from benchmarks.experiments.blocks import Block, block_of, print_blocks
from benchmarks.experiments.closed_loop import Client
from servers.apis.exports import exports_dir
from servers.apis.runtimes import PACKAGES
from servers.engines import allocator
from servers.processes.interpreter import module_argv
from servers.processes.proc import cpu_s
from servers.store import Store

_SIDES = ("loop", "litport", "litserve", "mosec", "triton", "bentoml")
# The model and the largest batch of the recipes `bench-embedding.yaml` and `bench-image.yaml`.
_RECIPES = {"embedding": ("all-minilm-l6-v2", 8), "image": ("efficientnet-lite0", 4)}
_SERVER = Path(peer_servers.__file__)
_WARM_UP_S = 3
_TERMINATED = 128 + signal.SIGTERM


class _Loop:
    """Processes that answer made requests in batches."""

    def __init__(self, kind: str, folder: Path, variant: str, processes: int, batch: int) -> None:
        threads = str(len(os.sched_getaffinity(0)) // processes)
        self._processes = [
            subprocess.Popen(
                _peer_argv(sys.executable, "loop", kind, folder, number, batch, variant),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**_environ(), "OMP_NUM_THREADS": threads},
                text=True,
            )
            for number in range(processes)
        ]
        self._lines()

    def run(self, seconds: float) -> Block:
        """Answer for so many seconds."""
        pids = [process.pid for process in self._processes]
        before_s, begin_s = cpu_s(pids), time.monotonic()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        count = sum(map(int, self._lines()))
        return Block(count / (time.monotonic() - begin_s), 1000 * (cpu_s(pids) - before_s) / count)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()

    def _lines(self) -> list[str]:
        return [process.stdout.readline().strip() for process in self._processes if process.stdout]


def _best_loop(kind: str, folder: Path, variant: str) -> tuple[int, int]:
    """The number of processes and the batch of the fastest loop."""
    rates = {}
    for processes in (1, 2):
        for batch in (2, 4, 8, 16):
            loop = _Loop(kind, folder, variant, processes, batch)
            rates[processes, batch] = loop.run(3).requests_per_s
            loop.close()
            print(f"loop, {processes} processes, batches of {batch}: {rates[processes, batch]:.1f}/s", flush=True)
    return max(rates, key=rates.__getitem__)


@contextmanager
def _server(side: str, kind: str, folder: Path, port: int, arguments: argparse.Namespace) -> Iterator[psutil.Process]:
    environ = _environ()
    if side == "litport":
        recipe = f"configs/recipes/bench-{kind}.yaml"
        options = ["--server.port", str(port), "--server.cache_dir", str(arguments.cache_dir)]
        fields = {"runtime": arguments.runtime, "precision": arguments.precision}
        model = [part for name, value in fields.items() for part in (f"--models.{_RECIPES[kind][0]}.{name}", value)]
        argv = [*module_argv("litport", "serve", recipe), *options, *model]
        environ["LITPORT_TELEMETRY__METRICS_PORT"] = "0"
    else:
        python = sys.executable if side == "litserve" else arguments.python
        argv = _peer_argv(python, side, kind, folder, port, _RECIPES[kind][1], _variant(arguments))
        environ["OMP_NUM_THREADS"] = "1"
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(argv, stdout=log, stderr=log, env=environ, start_new_session=True) as process,
    ):
        server = psutil.Process(process.pid)
        try:
            yield server
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # LitServe's processes outlive their parent


def _peer_argv(python: str, side: str, kind: str, folder: Path, port: int, batch: int, variant: str) -> list[str]:
    packages = [str(Path.cwd()), *(path for path in sys.path if path.endswith("-packages"))]
    return [python, str(_SERVER), side, kind, str(folder), str(port), str(batch), variant, *packages]


def _variant(arguments: argparse.Namespace) -> str:
    """The fields of `servers.apis.equality.Variant` as JSON, with the store's exports."""
    exports = exports_dir(arguments.cache_dir, _RECIPES[arguments.kind][0])
    return json.dumps({"runtime": arguments.runtime, "precision": arguments.precision, "exports": str(exports)})


def _environ() -> dict[str, str]:
    return {**os.environ, **allocator.environ()}


def _run_server(side: str, kind: str, folder: Path, arguments: argparse.Namespace) -> Block:
    """Start a server, warm it up, measure, and end it."""
    with _server(side, kind, folder, arguments.port, arguments) as process:
        url = f"http://127.0.0.1:{arguments.port}{_path(kind, side)}"
        client = Client(side, url, peer_servers.bodies(kind, arguments.port), arguments.users)
        asyncio.run(client.wait(process))
        asyncio.run(client.run(_WARM_UP_S))
        pids = [member.pid for member in (process, *process.children(recursive=True))]
        before_s = cpu_s(pids)
        latencies_s, elapsed_s = asyncio.run(client.run(arguments.seconds))
        return block_of(latencies_s, elapsed_s, cpu_s(pids) - before_s)


def _path(kind: str, side: str) -> str:
    own = "/v1/embeddings" if kind == "embedding" else "/predict"
    litport = own if kind == "embedding" else f"/predict/{_RECIPES[kind][0]}"
    others = {"mosec": "/inference", "triton": "/v2/models/model/infer", "bentoml": "/predict"}
    return {"litserve": own, "litport": litport, **others}[side]


def measure(kind: str, folder: Path, arguments: argparse.Namespace) -> dict[str, list[Block]]:
    """The blocks of each side."""
    variant = _variant(arguments)
    blocks: dict[str, list[Block]] = {side: [] for side in arguments.sides}
    size = (arguments.loop or _best_loop(kind, folder, variant)) if "loop" in arguments.sides else ()
    for number in range(arguments.rounds):
        for side in (*arguments.sides, *reversed(arguments.sides)):
            if side == "loop":
                with contextlib.closing(_Loop(kind, folder, variant, *size)) as loop:
                    loop.run(_WARM_UP_S)
                    block = loop.run(arguments.seconds)
            else:
                block = _run_server(side, kind, folder, arguments)
            blocks[side].append(block)
            print(number, side, f"{block.requests_per_s:.1f}/s", flush=True)
    return blocks


def main() -> int:
    """Print a table, the load of the machine, and as the last line one JSON document."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("kind", choices=sorted(_RECIPES))
    parser.add_argument("--python", default=sys.executable, help="an interpreter with mosec and nvidia-pytriton")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache/test-models"), help="the store")
    parser.add_argument("--sides", nargs="+", choices=_SIDES, default=_SIDES)
    parser.add_argument("--runtime", choices=("eager", *PACKAGES), default="eager")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--loop", nargs=2, type=int, metavar=("PROCESSES", "BATCH"), help="in place of the best")
    parser.add_argument("--port", type=int, default=8130)
    parser.add_argument("--rounds", type=int, default=2, help="repetitions of the order and back")
    parser.add_argument("--seconds", type=float, default=8, help="length of a block")
    parser.add_argument("--users", type=int, default=16)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(_TERMINATED))  # the servers end, too
    folder = Store(arguments.cache_dir).find(_RECIPES[arguments.kind][0])
    if folder is None:
        raise SystemExit(f"{arguments.cache_dir} has no {_RECIPES[arguments.kind][0]}; see `litport models pull`")
    load = os.getloadavg()[0]
    print_blocks(measure(arguments.kind, folder, arguments), load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
