"""What a client says when no platform answers at the address it was given. It knows no reason, and guesses none."""

import sys


def report(url: str) -> int:
    """Say so on standard error; returns the exit status."""
    print(f"nothing answers at {url}; is `litport serve` running there?", file=sys.stderr)
    return 1
