"""The commands that change a running platform of this user: load, unload, logs. They speak to its admin socket."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

_POLL_S = 0.2


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands to the command line."""
    load = commands.add_parser("load", help="load a model of a running platform now, and wait until it is ready")
    unload = commands.add_parser(
        "unload", aliases=["stop"], help="unload a model once its requests have ended; the next request loads it"
    )
    logs = commands.add_parser("logs", help="print what a model's processes have written")
    for parser, run in ((load, _load), (unload, _unload), (logs, _logs)):
        parser.add_argument("model", metavar="MODEL")
        parser.add_argument("--port", type=int, help="the platform's port on this machine (default: server.port)")
        parser.set_defaults(run=run)
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they write")


def _load(arguments: argparse.Namespace) -> None:
    _change(arguments, "/load")


def _unload(arguments: argparse.Namespace) -> None:
    _change(arguments, "/unload")


def _change(arguments: argparse.Namespace, path: str) -> None:
    document = _ask(arguments, "POST", path, json={"model": arguments.model})
    sys.stdout.write(f"{document['model']}: {document['state']} (before: {document['before']})\n")


def _logs(arguments: argparse.Namespace) -> None:
    from configs.errors import UserError

    file = Path(_ask(arguments, "GET", "/model", params={"name": arguments.model})["log_file"])
    while not file.exists():
        if not arguments.follow:
            sys.stderr.write(f"{arguments.model} has written nothing yet\n")
            return
        time.sleep(_POLL_S)
    try:
        _print(file, arguments.follow)
    except OSError as problem:
        raise UserError(f"{file}: {problem.strerror}") from None


def _print(file: Path, follows: bool) -> None:
    """Print the file and, if asked, what comes; a new file begins where the old one is put away."""
    while True:
        with file.open(encoding="utf-8", errors="replace") as log:
            inode = file.stat().st_ino
            while True:
                for line in log:
                    sys.stdout.write(line)
                sys.stdout.flush()
                if not follows:
                    return
                time.sleep(_POLL_S)
                if file.exists() and file.stat().st_ino != inode:
                    break


def _ask(arguments: argparse.Namespace, method: str, path: str, **content: Any) -> dict[str, Any]:
    """What the platform answers. Raises UserError, also where there is none."""
    import httpx

    from configs.errors import UserError
    from servers.platform import admin_socket
    from servers.platform.connection import settings_without_models

    port = arguments.port if arguments.port is not None else settings_without_models().server.port
    socket_path = admin_socket.find(port)
    if socket_path is None:
        raise UserError(f"no platform of this user answers on port {port} of this machine; --port names another")
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path)), timeout=None) as client:  # noqa: S113 # a load takes minutes
            answer = client.request(method, f"http://litport{path}", **content)
    except httpx.TransportError as problem:
        raise UserError(f"the platform on port {port} ended before it answered: {problem}") from None
    document: dict[str, Any] = answer.json()
    if answer.status_code != 200:
        raise UserError(str(document["error"]))
    return document
