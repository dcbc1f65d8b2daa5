"""The load generator against others: `vllm bench serve` and, where it is installed, GuideLLM.

    python -m benchmarks.experiments.load_tools agree --url http://127.0.0.1:8000 --model NAME --tokenizer FOLDER
    python -m benchmarks.experiments.load_tools cost --tokenizer FOLDER [--guidellm PATH]

`agree` sends the same workload to one server by Litport's generator (A) and vLLM's (B), A B B A, and prints the figures
of each. `cost` runs each against servers that do nothing, once with few chunks an answer and once with many, and prints
the processor time that a chunk more takes: the cost of starting and of sending is in both and cancels.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.load import generator, null_server
from benchmarks.load.request import COMPLETIONS, calls
from benchmarks.load.workload import make
from clients.record import window
from configs.bench import Workload

_VLLM = (
    "import sys\n"
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
    "parser = FlexibleArgumentParser()\n"
    "add_cli_args(parser)\n"
    "main(parser.parse_args(sys.argv[1:]))\n"
)
# Chunks of an answer.
_FEW, _MANY = 8, 264


def with_litport(
    url: str, model: str, users: int, requests: int, lengths: tuple[int, int], seed: int
) -> dict[str, float]:
    """Our own figures of one run: output tokens a second, median ttft and tpot in ms."""
    workload = Workload(requests=requests, input_tokens=str(lengths[0]), output_tokens=str(lengths[1]))
    load = calls(make(workload, requests, seed), COMPLETIONS, model)
    result = generator.generate(url, "events", load, users, 3600)
    failed = [record.error for record in result.records if record.failed]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed: {failed[0]}")
    begin_s, end_s = window(result.records)
    tokens = sum(record.output_tokens or 0 for record in result.records)
    return {
        "tokens_per_s": tokens / (end_s - begin_s),
        "ttft_ms": _median_ms([record.ttft_s for record in result.records]),
        "tpot_ms": _median_ms([record.tpot_s for record in result.records]),
    }


def with_vllm(
    url: str, model: str, users: int, requests: int, lengths: tuple[int, int], seed: int, tokenizer: Path
) -> dict[str, float]:
    """The figures of `vllm bench serve` for one run, in the same terms."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "backend": "openai",
            "base-url": url,
            "endpoint": "/v1/completions",
            "model": model,
            "tokenizer": tokenizer,
            "dataset-name": "random",
            "random-input-len": lengths[0],
            "random-output-len": lengths[1],
            "num-prompts": requests,
            "max-concurrency": users,
            "seed": seed,
            "temperature": 0,
            "percentile-metrics": "ttft,tpot",
            "result-dir": folder,
            "result-filename": "r.json",
            "ready-check-timeout-sec": 0,
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        argv = [sys.executable, "-c", _VLLM, *arguments, "--ignore-eos", "--save-result", "--disable-tqdm"]
        process = subprocess.run(argv, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            raise RuntimeError(process.stderr[-2000:])
        figures = json.loads(Path(folder, "r.json").read_text())
    return {
        "tokens_per_s": figures["output_throughput"],
        "ttft_ms": figures["median_ttft_ms"],
        "tpot_ms": figures["median_tpot_ms"],
    }


def agree(options: argparse.Namespace) -> None:
    """Print each side's figures, their ratios by repetition, and one JSON line."""
    lengths = (options.input_tokens, options.output_tokens)
    runs: dict[str, list[dict[str, float]]] = {"A": [], "B": []}
    for number, side in enumerate("ABBA" * options.rounds):
        arguments = (options.url, options.model, options.users, options.requests, lengths, options.seed + number)
        runs[side].append(with_litport(*arguments) if side == "A" else with_vllm(*arguments, options.tokenizer))
        print(side, {name: round(value, 2) for name, value in runs[side][-1].items()}, flush=True)
    for name in runs["A"][0]:
        litport, vllm = ([run[name] for run in runs[side]] for side in "AB")
        ratio = statistics.median(litport) / statistics.median(vllm)
        print(
            f"{name}: litport {statistics.median(litport):.2f} ({min(litport):.2f} to {max(litport):.2f}), "
            f"vllm bench serve {statistics.median(vllm):.2f} ({min(vllm):.2f} to {max(vllm):.2f}), ratio {ratio:.3f}"
        )
    print(json.dumps(runs))


def cost(options: argparse.Namespace) -> None:
    """Print chunks for each second of one core, by generator, and one JSON line."""
    sides: dict[str, Callable[[str, int], object]] = {
        "litport": lambda url, chunks: with_litport(url, "noop", *_shape(options, chunks), 0),
        "vllm bench serve": lambda url, chunks: with_vllm(url, "noop", *_shape(options, chunks), 0, options.tokenizer),
    }
    if options.guidellm:
        sides["guidellm"] = lambda url, chunks: _guidellm(options, url, chunks)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    with null_server.running("events", _FEW) as few, null_server.running("events", _MANY) as many:
        for names in [order, order[::-1]] * options.rounds:
            for name in names:
                spent_s = [_cpu_s(sides[name], url, chunks) for url, chunks in ((few, _FEW), (many, _MANY))]
                rates[name].append((_MANY - _FEW) * options.requests / (spent_s[1] - spent_s[0]))
                print(f"{name}: {rates[name][-1]:,.0f} chunks for a second of a core", flush=True)
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})")
    print(json.dumps(rates))


def _shape(options: argparse.Namespace, chunks: int) -> tuple[int, int, tuple[int, int]]:
    return options.users, options.requests, (options.input_tokens, chunks)


def _guidellm(options: argparse.Namespace, url: str, chunks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options_by_name = {
            "backend": f"kind=openai_http,target={url},model=noop,request_format=/v1/completions",
            "profile": f"kind=concurrent,streams={options.users}",
            "constraint": f"kind=max_requests,count={options.requests}",
            "tokenizer": f"kind=huggingface_auto,model={options.tokenizer}",
            "data": f"kind=synthetic_text,prompt_tokens={options.input_tokens},output_tokens={chunks}",
            "output": f"kind=json,path={folder}/r.json",
        }
        arguments = [word for name, value in options_by_name.items() for word in (f"--{name}", value)]
        argv = [options.guidellm, "run", *arguments, "--disable-console"]
        environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    if process.returncode != 0:
        raise RuntimeError((process.stderr or process.stdout)[-2000:])


def _cpu_s(run: Callable[[str, int], object], url: str, chunks: int) -> float:
    """Processor seconds of the child processes that the run starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(url, chunks)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _median_ms(values: Sequence[float | None]) -> float:
    return statistics.median(value for value in values if value is not None) * 1000


def main() -> int:
    """Run one of the two comparisons."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("experiment", metavar="what", choices=["agree", "cost"])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="the model's name at the URL")
    parser.add_argument("--tokenizer", type=Path, required=True, help="the model's folder")
    parser.add_argument("--guidellm", help="GuideLLM's command, in whatever environment")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of A B B A")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (agree if options.experiment == "agree" else cost)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
