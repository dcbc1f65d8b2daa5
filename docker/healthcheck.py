"""The container's HEALTHCHECK: whether it takes traffic, by `/ready`, which needs no key.

The image has no curl, and the check runs every few seconds, so it uses only the standard library. It reads host, port
and TLS from the environment, where the settings of a container are; it does not know those of a recipe or an option.
"""

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4
# A server on all addresses is reached by loopback.
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # nothing listens here


def main() -> int:
    """Print the answer of `/ready`; returns 0 if its status is 200, else 1."""
    host = os.environ.get("LITPORT_SERVER__HOST", "")
    address = (LOOPBACK.get(host, host), int(os.environ.get("LITPORT_SERVER__PORT", "8000")))
    connection: http.client.HTTPConnection
    if os.environ.get("LITPORT_SERVER__TLS_CERT_FILE"):
        # The certificate has the name of the service, and the connection stays within the container.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=context)
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
