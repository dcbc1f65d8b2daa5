"""`litport ray start`: a node of a Ray cluster, with the defaults that make it safe and quick to notice a fault.

Left to itself, Ray runs the code of whoever reaches one of its ports, which are open on every address; it reports its
use to its makers; it takes most of a minute to give up a machine that is frozen. Each of these is a variable, and
nothing says so where a machine lacks it. So this sets them all and becomes `ray start`, whose other options pass
through.
"""

import logging
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from configs.errors import UserError

_log = logging.getLogger("litport.cluster")

REQUIRED: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What no environment overrides."""

DEFAULTS: Mapping[str, str] = {
    # A node that answers none of three questions, 1 s apart, each within 2 s, is dead. Ray's own: five, 3 s, 10 s.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # Ray's own is 15, which models inherit: beside anything else on the machine they would hardly get a processor.
    "RAY_worker_niceness": "0",
}
"""What the environment may override, on every node alike."""


def start(head: bool, address: str | None, token_file: Path, arguments: Sequence[str]) -> int:
    """Become `ray start --block` with these options; does not return where Ray is installed.

    `address` is the head's, as HOST:PORT, for a node that joins; `arguments` are more options of `ray start`. Raises
    UserError.
    """
    if head == (address is not None):
        raise UserError("ray start: expected either --head, or --address HOST:PORT of the head")
    environment = node_environment(os.environ, token_file)
    if find_spec("ray") is None:
        raise UserError("Ray is not installed; make ray")
    place = ["--head"] if head else [f"--address={address}"]
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", *place, "--block", *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 # no shell; signals reach Ray itself


def node_environment(environment: Mapping[str, str], token_file: Path) -> dict[str, str]:
    """This environment with what a node needs. Raises UserError for a token that may not be used."""
    _check(token_file)
    clean = {name: value for name, value in environment.items() if name != "RAY_AUTH_TOKEN"}
    return {**DEFAULTS, **clean, **REQUIRED, "RAY_AUTH_TOKEN_PATH": str(token_file.absolute())}


def _check(token_file: Path) -> None:
    try:
        mode = token_file.stat().st_mode
        is_empty = not token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "other bytes than text"
        raise UserError(
            f"--token-file: expected a file with the cluster's token at {token_file}, got {reason}; "
            "(umask 077; openssl rand -hex 32 > FILE) makes one, for all nodes"
        ) from None
    if is_empty:
        raise UserError(f"--token-file: expected the cluster's token in {token_file}, got an empty file")
    if stat.S_IMODE(mode) & 0o022:
        raise UserError(f"--token-file: others may write to {token_file} (mode {stat.S_IMODE(mode):o}); chmod go-w it")
    if stat.S_IMODE(mode) & 0o044:
        _log.warning("%s: not only its owner may read this token; chmod go-r it", token_file)
