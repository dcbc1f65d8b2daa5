"""How a wrong value of a request is told: the field, what was expected, and what came, in few words.

A message goes to whoever sent the request, and often into a log of theirs: it never repeats a text.
"""

from typing import Any, NoReturn

from servers.errors import ApiError


def refuse(name: str, expected: str, value: Any, code: str = "invalid_value") -> NoReturn:
    """Raise the ApiError 400 for a field of a wrong value."""
    raise ApiError(400, f"{name}: expected {expected}, got {seen(value)}", code=code, param=name)


def refuse_type(name: str, expected: str, value: Any) -> NoReturn:
    """Raise the ApiError 400 for a field of a wrong type."""
    refuse(name, expected, value, "invalid_type")


def seen(value: Any) -> str:
    """A value in few words, without its text."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            text = str(value)
            return text if len(text) <= 40 else f"a number of {len(text)} digits"
        case str():
            return f"a string of {len(value)} characters" if value else "an empty string"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return f"an object of {len(value)} keys" if value else "an empty object"


def shortened(text: str) -> str:
    """A name of the request's own, not too long."""
    return text if len(text) <= 64 else f"{text[:61]}..."


def quoted(text: str) -> str:
    """A word of the request's own, in ASCII, not too long."""
    return ascii(shortened(text))[:80]
