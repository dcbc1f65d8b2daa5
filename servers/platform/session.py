"""`litport run`: a platform of one model, in a process of its own, and a chat with it; the platform ends with the chat.

Where a platform at the configured address serves the model already, the chat is with that one. Else the new platform
listens on the configured port, or on any free one where that is taken by default only.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
from rich.console import Console

from clients import chat, status, unreachable
from clients.documents import TAKES_REQUESTS, read_readiness, read_status
from configs.errors import UserError
from configs.loading import LoadedSettings
from servers.gateway.address import bind, url_of
from servers.processes.interpreter import module_argv

_POLL_S = 0.2
_DRAIN_S = 30
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)


def run(loaded: LoadedSettings, arguments: Sequence[str], options: chat.Options, prompt: str | None) -> int:
    """Chat with the one model of the settings; `arguments` are those that `litport serve` gets for them.

    The exit status is the chat's, or the platform's where that ended first. Raises UserError.
    """
    names = list(loaded.settings.models)
    if len(names) != 1:
        raise UserError(f"run: expected one model, got {', '.join(names) or 'none'}; `litport serve` serves several")
    server, keys = loaded.settings.server, loaded.settings.auth.api_keys
    key = keys[0].get_secret_value() if keys else os.environ.get("OPENAI_API_KEY")
    tls = server.tls_cert_file is not None
    url = url_of(server.host, server.port, tls)
    if len(arguments) == 1 and _state(url, names[0]) in TAKES_REQUESTS:
        sys.stderr.write(f"{url} serves {names[0]} already\n")
        return chat.run(url, key, names[0], options, prompt)
    port = _port(loaded)
    url = url_of(server.host, port, tls)
    ports = ["--server.port", str(port)]
    if ("telemetry", "metrics_port") not in loaded.origins:
        ports += ["--telemetry.metrics_port", "0"]
    with _platform([*arguments, *ports]) as (process, log):
        if not _wait_until_ready(process, url, names[0]):
            sys.stderr.write(f"litport: {_last_words(log)}\n")
            return process.wait()
        _check_chats(url, key, names[0])
        sys.stderr.write(f"{names[0]} is at {url} until this ends\n")
        return chat.run(url, key, names[0], options, prompt)


def _port(loaded: LoadedSettings) -> int:
    """The configured port; where it is taken and nobody asked for it, any free one. Raises UserError."""
    server = loaded.settings.server
    try:
        listener = bind(server.host, server.port)
    except UserError:
        if ("server", "port") in loaded.origins:
            raise
        listener = bind(server.host, 0)
    with listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _platform(arguments: Sequence[str]) -> "Iterator[tuple[subprocess.Popen[bytes], Path]]":
    """`litport serve` and the file of its log; it ends with the block, and when this process is killed.

    It has a session of its own, so that Ctrl-C on the terminal ends an answer and not the platform.
    """
    with tempfile.NamedTemporaryFile(prefix="litport-", suffix=".log") as log:
        argv = module_argv("litport", "serve", *arguments)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            yield process, Path(log.name)
        finally:
            _end(process)


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_DRAIN_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        process.terminate()  # the second signal ends the models at once
        process.wait(_DRAIN_S)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, name: str) -> bool:
    """Whether the model is ready, after any time; False when the platform has ended."""
    begin_s = time.monotonic()
    with _display() as show:
        while process.poll() is None:
            state = _state(url, name)
            if state in TAKES_REQUESTS:
                return True
            show(f"{name}: {state or 'starting'}, {time.monotonic() - begin_s:.0f} s")
            time.sleep(_POLL_S)
    return False


@contextlib.contextmanager
def _display() -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as line:
        yield line.update


def _state(url: str, name: str) -> str | None:
    """The state of a model of the platform at this address; None where there is none.

    Raises UserError where its certificate is not trusted.
    """
    try:
        return read_readiness(httpx.get(f"{url}/ready", timeout=5).content).models.get(name)
    except (httpx.TransportError, ValueError) as problem:  # nobody, or somebody else's server
        if "CERTIFICATE_VERIFY_FAILED" in str(problem):
            raise UserError(unreachable.describe(url)) from None
        return None


def _check_chats(url: str, key: str | None, name: str) -> None:
    """Raises UserError when the model takes no chats."""
    answer = status.fetch(url, key)
    models = read_status(answer.content).models if answer.status_code == 200 else []
    paths = next((model.paths for model in models if model.name == name), [])
    if paths and "/v1/chat/completions" not in paths:
        advice = f"`litport serve` serves it, and `litport predict {name} FILE|JSON` asks it"
        raise UserError(f"{name} takes no chats, it has {', '.join(paths)}; {advice}")


def _last_words(log: Path) -> str:
    """The message of the last line that the platform wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or ["the platform ended without a word"]
    try:
        return str(json.loads(lines[-1])["message"])
    except (ValueError, KeyError, TypeError):
        return lines[-1].removeprefix("litport: ")
