"""The command line of `litport bench`; what it calls is imported when it is called."""

import argparse
import json
import os
from pathlib import Path


def add_bench(bench: argparse.ArgumentParser, epilog: str) -> None:
    """Add run, load and compare; `epilog` says of those that take settings how."""
    actions = bench.add_subparsers(metavar="ACTION", required=True)
    run = actions.add_parser("run", help="measure a recipe's model, from the bare model up to Litport", epilog=epilog)
    run.add_argument("recipe", metavar="RECIPE", help="a recipe (.yaml) with one model, or with bench.model")
    run.add_argument("--out", required=True, metavar="DIR", help="the folder for the result")
    run.add_argument("--require-parity", action="store_true", help="fail where a rung answers otherwise")
    run.add_argument("--confirm", action="store_true", help="try what the verdict advises, and say what it did")
    run.set_defaults(run=_run)
    load = actions.add_parser("load", help="load any OpenAI-compatible or predict URL", epilog=epilog)
    load.add_argument("url", metavar="URL", help="http://host:port, or the address of an embeddings or predict route")
    load.add_argument("--model", required=True, help="the name of the model in the requests")
    load.add_argument("--body", help="the JSON request, for a predict route")
    load.add_argument("--key", help="the API key (default: the environment's OPENAI_API_KEY)")
    load.add_argument("--out", metavar="DIR", help="the folder for the result")
    load.set_defaults(run=_load)
    compare = actions.add_parser("compare", help="the throughput of one result over another's")
    compare.add_argument("a", metavar="A", help="the folder of a result")
    compare.add_argument("b", metavar="B", help="the folder of another")
    compare.add_argument("--fail-below", type=float, metavar="RATIO", help="exit with 1 where B/A is surely below")
    compare.add_argument(
        "--pair",
        nargs=2,
        action="append",
        default=[],
        metavar="RUNG",
        help="a rung of A, and the one of B to compare with it (default: those of the same name)",
    )
    compare.set_defaults(run=_compare)


def _run(arguments: argparse.Namespace) -> int:
    from benchmarks import commands
    from servers.platform.targets import check, load

    loaded = load([arguments.recipe], arguments.overrides)
    check(loaded)
    options = {"require_parity": arguments.require_parity, "confirm": arguments.confirm}
    return commands.run_recipe(loaded, Path(arguments.out), **options)


def _load(arguments: argparse.Namespace) -> int:
    from benchmarks import commands
    from configs.errors import UserError
    from configs.loading import load

    try:
        body = json.loads(arguments.body) if arguments.body else None
    except json.JSONDecodeError as problem:
        raise UserError(f"--body: expected JSON, got {arguments.body!r}: {problem}") from None
    key = arguments.key or os.environ.get("OPENAI_API_KEY")
    out = Path(arguments.out) if arguments.out else None
    loaded = load([], arguments.overrides)
    return commands.load_url(loaded, arguments.url, model=arguments.model, key=key, body=body, out=out)


def _compare(arguments: argparse.Namespace) -> int:
    from benchmarks import commands

    pairs = [(first, second) for first, second in arguments.pair]
    return commands.compare(Path(arguments.a), Path(arguments.b), arguments.fail_below, pairs)
