"""A real redis-server on a port of the loopback interface, which tests kill and start again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.services.polling import wait_until
from tests.services.ports import free_port

PASSWORD = "a-password-that-no-log-may-have"


class RedisServer:
    """The server, which keeps nothing when it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@{self.address}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        options = {"port": str(self._port), "bind": "127.0.0.1", "requirepass": PASSWORD, "save": "", "dir": "."}
        command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        wait_until(self._listens, problem=(self._folder / "redis.log").read_text)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; with SIGKILL, wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(number)
        if number is signal.SIGKILL:
            self._process.wait()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True
        return False


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server until the block ends; where there is none, what needs it is skipped, and says that it is not tested."""
    if find_spec("redis") is None:
        pytest.skip("NOT TESTED: limits of several gateways, as redis-py is not installed (make redis)")
    if shutil.which("redis-server") is None:
        pytest.skip("NOT TESTED: limits of several gateways, as there is no redis-server")
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.signal(signal.SIGKILL)
