"""Waiting for a platform to come up, for scripts and tests: `python -m clients.ready http://127.0.0.1:8000 600`."""

import sys
import time

import httpx

from clients.documents import read_readiness


def wait_until_ready(url: str, timeout_s: float) -> dict[str, str]:
    """Wait until every required model is ready, and return each model's state.

    Raises TimeoutError naming the states (or the connection's problem) when `timeout_s` seconds are over.
    """
    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=url, timeout=5) as client:
        while True:
            try:
                readiness = read_readiness(client.get("/ready").content)
                if readiness.ready:
                    return readiness.models
                reason = ", ".join(f"{model} is {state}" for model, state in readiness.models.items())
            except httpx.TransportError as problem:
                reason = str(problem)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} is not ready after {timeout_s:g} s: {reason}")
            time.sleep(0.2)


if __name__ == "__main__":
    print(wait_until_ready(sys.argv[1], float(sys.argv[2])))
