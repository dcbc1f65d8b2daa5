"""Waiting for a platform to come up, for scripts and tests: `python -m clients.ready http://127.0.0.1:8000 600`."""

import sys
import time

import httpx


def wait_until_ready(url: str, timeout_s: float) -> dict[str, str]:
    """Wait until every required model is ready, and return each model's state.

    Raises TimeoutError naming the states (or the connection's problem) when `timeout_s` seconds are over.
    """
    deadline = time.monotonic() + timeout_s
    with httpx.Client(base_url=url, timeout=5) as client:
        while True:
            try:
                answer = client.get("/ready").json()
                if answer["ready"]:
                    return dict(answer["models"])
                seen = ", ".join(f"{model} is {state}" for model, state in answer["models"].items())
            except httpx.TransportError as problem:
                seen = str(problem)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} is not ready after {timeout_s:g} s: {seen}")
            time.sleep(0.2)


if __name__ == "__main__":
    print(wait_until_ready(sys.argv[1], float(sys.argv[2])))
