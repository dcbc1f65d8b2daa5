"""Ports of the loopback interface: one that is free, one that is in use, one that refuses connections."""

import contextlib
import socket
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on now. For programs that cannot be told to take any free one themselves."""
    with refusing_port() as port:
        return port


@contextlib.contextmanager
def port_in_use() -> Iterator[int]:
    """A port on which somebody listens and never answers."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that belongs to somebody who does not listen: connections to it are refused."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]
