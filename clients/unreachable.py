"""A message for a platform that does not answer. The client does not know why, so the message does not guess."""

import sys


def report(url: str) -> int:
    """Print the message on standard error and return the exit status."""
    print(f"nothing answers at {url}; is `litport serve` running there?", file=sys.stderr)
    return 1
