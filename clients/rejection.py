"""The line for a platform that refused a request, with what its user can do about it."""

import json
import sys

_ADVICE = {401: "--key, or OPENAI_API_KEY, gives a key", 403: "--key gives another key"}


def describe(status: int, text: str) -> str:
    """The status and the error's message, in whichever of the known shapes; text of another shape is cut."""
    return "; ".join(filter(None, (f"{status}: {message_of(text)}", _ADVICE.get(status))))


def report(status: int, text: str) -> int:
    """Print the line on standard error and return the exit status."""
    print(describe(status, text), file=sys.stderr)
    return 1


def message_of(text: str) -> str:
    """What the body of an error says."""
    try:
        document = json.loads(text)
        return str(document["error"]["message"] if "error" in document else document["detail"])
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:500]
