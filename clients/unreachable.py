"""A message for a platform that does not answer: nobody listens, or somebody who speaks another protocol."""

import contextlib
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

_TIMEOUT_S = 5.0


def report(url: str) -> int:
    """Print the message on standard error and return the exit status."""
    print(describe(url), file=sys.stderr)
    return 1


def describe(url: str) -> str:
    """What is wrong with the address, found out by one more connection to it."""
    address = urlsplit(url)
    is_tls = address.scheme == "https"
    host, port = address.hostname or "", address.port or (443 if is_tls else 80)
    try:
        connection = socket.create_connection((host, port), _TIMEOUT_S)
    except OSError:
        return f"nothing answers at {url}; is `litport serve` running there?"
    with connection:
        if not is_tls:
            if not _speaks_tls(connection):
                return _silent(url)
            return f"{url}: the port speaks HTTPS; expected https://{url.removeprefix('http://')}"
        try:
            context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLCertVerificationError as problem:
            reason = problem.verify_message
            return f"{url}: its certificate is not trusted ({reason}); SSL_CERT_FILE names a file with its authority"
        except OSError:  # ssl.SSLError is one
            return f"{url}: the port does not speak HTTPS; expected http://{url.removeprefix('https://')}"
    return _silent(url)


def _speaks_tls(connection: socket.socket) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError):
        context.wrap_socket(connection).close()
        return True
    return False


def _silent(url: str) -> str:
    return f"no answer came from {url}, where something listens"
