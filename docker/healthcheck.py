"""Whether this container takes traffic: its HEALTHCHECK, which asks `/ready` as any client would, without a key.

It exists because the image holds no curl. It runs every few seconds, hence the standard library only. Port and TLS come
from the environment, where a container has its settings; it refuses to guess those that a recipe or an option sets.
"""

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4
# An address that stands for all of them is reached by loopback.
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # listens on nothing


def main() -> int:
    """Say what `/ready` says, and return 0 where it is 200, else 1."""
    host = os.environ.get("LITPORT_SERVER__HOST", "")
    address = (LOOPBACK.get(host, host), int(os.environ.get("LITPORT_SERVER__PORT", "8000")))
    connection: http.client.HTTPConnection
    if os.environ.get("LITPORT_SERVER__TLS_CERT_FILE"):
        # The name in the certificate is that of the service, and nobody stands between a process and itself.
        unverified = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=unverified)
    else:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.status} {answer.read().decode(errors='replace')}\n")
    except (OSError, http.client.HTTPException) as problem:
        sys.stdout.write(f"{type(problem).__name__}: {problem}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
