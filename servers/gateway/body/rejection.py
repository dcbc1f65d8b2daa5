"""The errors for wrong values in a request: the field, what was expected, and a short description of what came.

A message goes to the sender, and often into the sender's log: it never repeats a text of the request.
"""

from typing import Any, NoReturn

from servers.errors import ApiError


def reject(name: str, expected: str, value: Any, code: str = "invalid_value") -> NoReturn:
    """Raise the ApiError 400 for a field of a wrong value."""
    raise ApiError(400, f"{name}: expected {expected}, got {describe_value(value)}", code=code, param=name)


def reject_type(name: str, expected: str, value: Any) -> NoReturn:
    """Raise the ApiError 400 for a field of a wrong type."""
    reject(name, expected, value, "invalid_type")


def describe_value(value: Any) -> str:
    """Describe a value without its text."""
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


def shorten(text: str) -> str:
    """A name from the request, cut to 64 characters."""
    return text if len(text) <= 64 else f"{text[:61]}..."


def quote(text: str) -> str:
    """A short text from the request as ASCII in quotes, cut to 80 characters."""
    return ascii(shorten(text))[:80]
