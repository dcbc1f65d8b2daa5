"""Server-sent events as the standard has them: comments, `event:`, `id:` and `retry:` lines, several `data:` lines.

Source: WHATWG, "HTML Living Standard", 9.2.6, "Interpreting an event stream". One thing is more lenient: an event that
the end of the stream cuts off before its blank line still counts, since several servers end so.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

_BLANK = (b"\n", b"\r\n")


class ServerEvent(NamedTuple):
    """The type of an event ("message" where it has none) and its data, decoded as far as lines go."""

    name: str
    data: bytes


def blocks(response: Any) -> Iterator[bytes]:
    """The lines up to each blank line, as they come; `response` is geventhttpclient's.

    Raises msgspec.DecodeError for lines that end with CR alone: they are allowed, but cannot be read as they come.
    """
    lines: list[bytes] = []
    while line := response.readline(b"\n"):
        if line in _BLANK:
            if lines:
                yield b"".join(lines)
                lines = []
        else:
            lines.append(bytes(line))
    lines.append(bytes(response.read()))
    block = b"".join(lines)
    if b"\r\r" in block:
        raise msgspec.DecodeError("expected lines that end with LF or CRLF, got CR alone, which cannot be timed")
    if block:
        yield block


def parse(block: bytes) -> ServerEvent | None:
    """The event of a block; None for one without data, such as a comment that keeps the connection alive."""
    if block.startswith(b"data:") and block.find(b"\n") >= len(block) - 1:  # nearly all are so
        return ServerEvent("message", block[5:].strip())
    name, data = "message", []
    for line in block.removeprefix(b"\xef\xbb\xbf").splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace") or "message"
    return ServerEvent(name, b"\n".join(data).strip()) if data else None
