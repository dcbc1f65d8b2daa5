"""The public address: bound before anything else starts, so that a port in use is reported at once.

The command line uses this module too, so it imports only the standard library.
"""

import contextlib
import errno
import ipaddress
import socket

from configs.errors import UserError

_BACKLOG = 2048
# How far above a port in use a free one is looked for.
_NEXT_PORTS = 20


def bind(
    host: str, port: int, settings: str = "server.host, server.port", *, reserved_port: int | None = None
) -> socket.socket:
    """A listening socket. Raises UserError when the address is not available; it says why and what to change.

    The port that it proposes instead is not `reserved_port`, which another setting takes.
    """
    listener = None
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        # With its protocol: asyncio sends small writes at once only on a socket that it knows to be TCP.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except UnicodeError:
        raise UserError(f"{settings}: expected a host name or an address, got {host!r}") from None
    except OSError as problem:
        if listener is not None:
            listener.close()
        if problem.errno == errno.EADDRINUSE:
            advice = _in_use(host, port, (family, kind, protocol), settings.split()[-1], reserved_port)
        else:
            advice = f"cannot listen on {host} port {port} ({settings}): {problem.strerror}"
        raise UserError(advice) from None
    listener.setblocking(False)
    return listener


def _in_use(host: str, port: int, socket_kind: tuple[int, int, int], setting: str, reserved_port: int | None) -> str:
    """The message for a port in use: who has it, and a port that is free."""
    from servers.gateway.port_holder import describe_holder

    holder = describe_holder(host, port)
    free = 0 if "metrics" in setting else _free_port(host, port, socket_kind, reserved_port)
    by = f" by {holder}" if holder else ""
    return f"port {port} of {host} is in use{by}; choose another, as in --{setting} {free}"


def _free_port(host: str, port: int, socket_kind: tuple[int, int, int], reserved_port: int | None) -> int:
    """The first free port above `port`; 0, which stands for any, where the next ones are all in use."""
    for candidate in range(port + 1, min(port + 1 + _NEXT_PORTS, 65536)):
        if candidate == reserved_port:
            continue
        with contextlib.suppress(OSError), socket.socket(*socket_kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, candidate))
            probe.listen()
            return candidate
    return 0


def address_of(listener: socket.socket, tls: bool = False) -> str:
    """The URL under which a client on this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    return url_of(host, port, tls)


def url_of(host: str, port: int, tls: bool = False) -> str:
    """The URL of a listening address; the address of all interfaces becomes loopback."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 # nothing is bound here
    scheme = "https" if tls else "http"
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def is_public(host: str) -> bool:
    """Whether other machines may reach this address; True when it cannot be resolved."""
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # an unknown name; an impossible name
        return True
    return not all(ipaddress.ip_address(address[0]).is_loopback for *_, address in addresses)
