"""Further commands: replica, and those that change a running platform of this user through its admin socket."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.arguments import SETTINGS, TARGET, seconds

if TYPE_CHECKING:
    import httpx

_POLL_S = 0.2


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the command line."""
    replica = commands.add_parser(
        "replica", help="serve one model of a recipe to the front doors of other machines", epilog=SETTINGS
    )
    replica.add_argument("target", metavar="RECIPE", help=TARGET)
    replica.add_argument("model", metavar="MODEL", help="the model's name in the recipe")
    replica.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    replica.add_argument("--port", type=int, required=True, help="the port to listen on; 0 for any free one")
    replica.set_defaults(run=_replica)

    apply = commands.add_parser("apply", help="bring a running platform to what a recipe says, while it serves")
    apply.add_argument("recipes", nargs="+", metavar="RECIPE")
    apply.add_argument("--yes", action="store_true", help="do not ask")
    apply.add_argument("--port", type=int, help="the platform's port on this machine (default: server.port)")
    apply.set_defaults(run=_apply)
    load = commands.add_parser("load", help="load a model of a running platform now, and wait until it is ready")
    unload = commands.add_parser(
        "unload", aliases=["stop"], help="unload a model once its requests have ended; the next request loads it"
    )
    swap = commands.add_parser("swap", help="let a new version of a model take over, without a failed request")
    rollback = commands.add_parser("rollback", help="let the version before the last swap take over again")
    scale = commands.add_parser("scale", help="serve a model by another number of replicas")
    logs = commands.add_parser("logs", help="print what a model's processes have written")
    pairs = ((load, _load), (unload, _unload), (swap, _swap), (rollback, _rollback), (scale, _scale), (logs, _logs))
    for parser, run in pairs:
        parser.add_argument("model", metavar="MODEL")
        parser.add_argument("--port", type=int, help="the platform's port on this machine (default: server.port)")
        parser.set_defaults(run=run)
    scale.add_argument("replicas", metavar="N", type=int)
    _add_swap_options(swap)
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they write")


def _replica(arguments: argparse.Namespace) -> int:
    from servers.platform import logs, replica
    from servers.platform.targets import load

    loaded = load([arguments.target], arguments.overrides)
    logs.configure(loaded.settings.telemetry)
    return replica.serve_replica(loaded, arguments.model, arguments.host, arguments.port)


def _add_swap_options(swap: argparse.ArgumentParser) -> None:
    swap.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings of the model that change"
    )
    swap.add_argument("--source", help="short for --set source=SOURCE")
    swap.add_argument("--allow-gap", action="store_true", help="end the old version first where both do not fit")
    swap.add_argument("--compare", type=int, default=0, metavar="N", help="first ask both versions N requests")
    swap.add_argument("--min-equal", type=float, default=0.9, metavar="SHARE", help="of these answers (0.9)")
    swap.add_argument("--steps", default="100", help="percentages of the requests, such as 5,25,100 (100: at once)")
    swap.add_argument("--every", type=seconds, default=60.0, metavar="SECONDS", help="how long each step takes (60s)")
    swap.add_argument(
        "--max-errors", type=float, default=0.01, metavar="SHARE", help="how many more may fail than before (0.01)"
    )
    swap.add_argument(
        "--max-slowdown", type=float, default=1.5, metavar="FACTOR", help="how much longer answers may take (1.5)"
    )


def _apply(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where the rest is applied and a model that is not required could not be started."""
    from configs.errors import UserError

    recipes = [Path(recipe).absolute() for recipe in arguments.recipes]
    arguments.port = arguments.port if arguments.port is not None else _port_of(recipes)
    plan = _ask(arguments, "POST", "/plan", json={"recipes": [str(recipe) for recipe in recipes]})
    sys.stdout.write("".join(f"{line}\n" for line in plan["lines"]) or "nothing differs\n")
    if plan["is_empty"]:
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UserError("nothing was changed: expected --yes where nobody can be asked")
        answer = ""
        with contextlib.suppress(EOFError):  # Ctrl-D
            answer = input("do this? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            raise UserError("nothing was changed")
    sys.stdout.flush()
    outcome = _ask(arguments, "POST", "/apply", json={"plan": plan["plan"]})
    sys.stdout.write("".join(f"done: {line}\n" for line in outcome["results"]))
    sys.stdout.flush()
    sys.stderr.write("".join(f"{line}; the rest is done\n" for line in outcome["failures"]))
    return 1 if outcome["failures"] else 0


def _port_of(recipes: Sequence[Path]) -> int | None:
    """The port that the last of the recipes to name one has. Raises SettingsError for a recipe that cannot be read."""
    from configs.errors import SettingsError
    from configs.sources import read_recipe

    layers = [read_recipe(recipe, {}) for recipe in recipes]
    if problems := tuple(problem for layer in layers for problem in layer.problems):
        raise SettingsError(problems)
    values = (layer.values.get(("server", "port")) for layer in reversed(layers))
    text = next((str(value.value) for value in values if value is not None), "")
    return int(text) if text.isdigit() else None


def _swap(arguments: argparse.Namespace) -> None:
    from configs.errors import UserError

    changes = dict(pair.partition("=")[::2] for pair in arguments.set)
    if wrong := [pair for pair in arguments.set if "=" not in pair]:
        raise UserError(f"--set: expected KEY=VALUE, got {wrong[0]!r}")
    if arguments.source is not None:
        if "source" in changes:
            raise UserError("--source: expected it alone, or --set source=..., got both")
        changes["source"] = arguments.source
    if duplicates := [key for key in changes if sum(pair.startswith(f"{key}=") for pair in arguments.set) > 1]:
        raise UserError(f"--set: expected each setting once, got {duplicates[0]} twice")
    changes = {key: _absolute(value) if key in ("source", "api") else value for key, value in changes.items()}
    if not changes:
        raise UserError("expected a change, as --set KEY=VALUE or --source SOURCE, got none")
    try:
        steps = [int(step) for step in arguments.steps.split(",")]
    except ValueError:
        raise UserError(f"--steps: expected numbers such as 5,25,100, got {arguments.steps!r}") from None
    order = {
        "set": changes,
        "allow_gap": arguments.allow_gap,
        "compare": arguments.compare,
        "steps": steps,
        "every_s": arguments.every,
        "min_equal": arguments.min_equal,
        "max_errors": arguments.max_errors,
        "max_slowdown": arguments.max_slowdown,
    }
    _revise(arguments, "/swap", order)


def _rollback(arguments: argparse.Namespace) -> None:
    _revise(arguments, "/rollback", {})


def _scale(arguments: argparse.Namespace) -> None:
    _revise(arguments, "/scale", {"replicas": arguments.replicas})


def _revise(arguments: argparse.Namespace, path: str, order: dict[str, Any]) -> None:
    """Print each step as it comes."""
    from configs.errors import UserError

    with _answering(arguments, "POST", path, params={"name": arguments.model}, json=order) as answer:
        for line in answer.iter_lines():
            document = json.loads(line)
            if "error" in document:
                raise UserError(str(document["error"]))
            if "step" in document:
                sys.stdout.write(f"{document['step']}: {document['detail']}\n")
                sys.stdout.flush()


def _absolute(source: str) -> str:
    """A source or an API that is a path here as one that the platform finds, too, wherever it runs."""
    is_path = source.startswith((".", "~")) or source.endswith(".gguf")
    return str(Path(source).expanduser().absolute()) if is_path else source


def _load(arguments: argparse.Namespace) -> None:
    _change(arguments, "/load")


def _unload(arguments: argparse.Namespace) -> None:
    _change(arguments, "/unload")


def _change(arguments: argparse.Namespace, path: str) -> None:
    document = _ask(arguments, "POST", path, json={"model": arguments.model})
    sys.stdout.write(f"{document['model']}: {document['state']} (before: {document['before']})\n")


def _logs(arguments: argparse.Namespace) -> None:
    from configs.errors import UserError

    model = _ask(arguments, "GET", "/model", params={"name": arguments.model})
    if model["address"] is not None:
        raise UserError(f"{model['model']} runs elsewhere ({model['address']}), and its log is there")
    file = Path(model["log_file"])
    while not file.exists():
        if not arguments.follow:
            sys.stderr.write(f"{arguments.model} has written nothing yet\n")
            return
        time.sleep(_POLL_S)
    try:
        _print(file, arguments.follow)
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise UserError(f"{file}: {problem.strerror}") from None


def _print(file: Path, follows: bool) -> None:
    """Print the file and, if asked, what comes; a new file begins where the old one is put away."""
    while True:
        with file.open(encoding="utf-8", errors="replace") as log:
            inode = file.stat().st_ino
            while True:
                is_put_away = follows and file.exists() and file.stat().st_ino != inode
                for line in log:
                    sys.stdout.write(line)
                sys.stdout.flush()
                if not follows:
                    return
                if is_put_away:
                    break
                time.sleep(_POLL_S)


def _ask(arguments: argparse.Namespace, method: str, path: str, **content: Any) -> dict[str, Any]:
    """What the platform answers. Raises UserError, also where there is none."""
    from configs.errors import UserError

    with _answering(arguments, method, path, **content) as answer:
        answer.read()
    if answer.status_code >= 500:
        raise UserError("the platform failed at it; its log says how")
    document: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        raise UserError(str(document["error"]))
    return document


@contextlib.contextmanager
def _answering(arguments: argparse.Namespace, method: str, path: str, **content: Any) -> "Iterator[httpx.Response]":
    """The answer of the platform, as it comes. Raises UserError where there is none."""
    import httpx

    from configs.errors import UserError
    from servers.platform import admin_socket
    from servers.platform.connection import settings_without_models

    port = arguments.port if arguments.port is not None else settings_without_models().server.port
    socket_path = admin_socket.find(port)
    if socket_path is None:
        raise UserError(f"no platform of this user answers on port {port} of this machine; --port names another")
    try:
        transport = httpx.HTTPTransport(uds=str(socket_path))
        with (
            httpx.Client(transport=transport, timeout=None) as client,  # noqa: S113 # a load takes minutes
            client.stream(method, f"http://litport{path}", **content) as answer,
        ):
            yield answer
    except httpx.TransportError as problem:
        raise UserError(f"the platform on port {port} ended before it answered: {problem}") from None
