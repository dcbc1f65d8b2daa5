"""The load generator against others: `vllm bench serve` and, where it is installed, GuideLLM.

    python -m benchmarks.experiments.generators agree --url http://127.0.0.1:8000 --model NAME --tokenizer FOLDER
    python -m benchmarks.experiments.generators cost --tokenizer FOLDER [--guidellm PATH]

`agree` asks one server the same workload by Litport's generator (A) and vLLM's (B), A B B A, and prints what each says
of it. `cost` gives each the same requests from servers that do nothing, once with few chunks an answer and once with
many, and prints the processor time that a chunk more takes: what starting and asking costs is in both and cancels. It
installs nothing.
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
from benchmarks.load.workload import calls, make
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
    asked = calls(make(workload, requests, seed), "completions", model, "/v1/completions")
    result = generator.generate(url, "events", asked, users, 3600)
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
    """What `vllm bench serve` says of one run, in the same terms."""
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
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        argv = [sys.executable, "-c", _VLLM, *words, "--ignore-eos", "--save-result", "--disable-tqdm"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        said = json.loads(Path(folder, "r.json").read_text())
    return {
        "tokens_per_s": said["output_throughput"],
        "ttft_ms": said["median_ttft_ms"],
        "tpot_ms": said["median_tpot_ms"],
    }


def agree(options: argparse.Namespace) -> None:
    """Print each side's figures, their ratios by repetition, and one JSON line."""
    lengths = (options.input_tokens, options.output_tokens)
    runs: dict[str, list[dict[str, float]]] = {"A": [], "B": []}
    for number, side in enumerate("ABBA" * options.rounds):
        shared = (options.url, options.model, options.users, options.requests, lengths, options.seed + number)
        runs[side].append(with_litport(*shared) if side == "A" else with_vllm(*shared, options.tokenizer))
        print(side, {name: round(value, 2) for name, value in runs[side][-1].items()}, flush=True)
    for name in runs["A"][0]:
        ours, theirs = ([run[name] for run in runs[side]] for side in "AB")
        ratio = statistics.median(ours) / statistics.median(theirs)
        print(
            f"{name}: litport {statistics.median(ours):.2f} ({min(ours):.2f} to {max(ours):.2f}), vllm bench serve "
            f"{statistics.median(theirs):.2f} ({min(theirs):.2f} to {max(theirs):.2f}), ratio {ratio:.3f}"
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
    found: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    with null_server.running("events", _FEW) as few, null_server.running("events", _MANY) as many:
        for names in [order, order[::-1]] * options.rounds:
            for name in names:
                spent_s = [_cpu_s(sides[name], url, chunks) for url, chunks in ((few, _FEW), (many, _MANY))]
                found[name].append((_MANY - _FEW) * options.requests / (spent_s[1] - spent_s[0]))
                print(f"{name}: {found[name][-1]:,.0f} chunks for a second of a core", flush=True)
    for name, values in found.items():
        print(f"{name}: median {statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})")
    print(json.dumps(found))


def _shape(options: argparse.Namespace, chunks: int) -> tuple[int, int, tuple[int, int]]:
    return options.users, options.requests, (options.input_tokens, chunks)


def _guidellm(options: argparse.Namespace, url: str, chunks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "backend": f"kind=openai_http,target={url},model=noop,request_format=/v1/completions",
            "profile": f"kind=concurrent,streams={options.users}",
            "constraint": f"kind=max_requests,count={options.requests}",
            "tokenizer": f"kind=huggingface_auto,model={options.tokenizer}",
            "data": f"kind=synthetic_text,prompt_tokens={options.input_tokens},output_tokens={chunks}",
            "output": f"kind=json,path={folder}/r.json",
        }
        argv = [options.guidellm, "run", *(word for name, value in words.items() for word in (f"--{name}", value))]
        environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([*argv, "--disable-console"], capture_output=True, text=True, check=False, env=environ)
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout)[-2000:])


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
    parser.add_argument("what", choices=["agree", "cost"])
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
    (agree if options.what == "agree" else cost)(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
