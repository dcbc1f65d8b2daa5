"""The beginning of a request's prompt, as its bytes stand in the body: requests that share it share cached work.

The body has been read strictly before, so that a key cannot stand within a string. A key of an inner object may be
taken for that of the prompt, which costs no more than a place in a cache.
"""

import re
from collections.abc import Mapping, Sequence

# About 256 tokens of text: the size of a system prompt, and a few blocks of vLLM's cache (16 tokens, on a CPU 128).
BEGINNING_BYTES = 1024


def _fields(*names: str) -> Sequence[re.Pattern[bytes]]:
    return [re.compile(rb'"%s"[ \t\r\n]*:' % name.encode()) for name in names]


# Of each route the fields that its prompt begins with, the first one first.
_FIELDS: Mapping[str, Sequence[re.Pattern[bytes]]] = {
    "/v1/chat/completions": _fields("messages"),
    "/v1/completions": _fields("prompt"),
    "/v1/messages": _fields("system", "messages"),
    "/v1/responses": _fields("instructions", "input"),
}


def beginning(path: str, body: bytes) -> bytes | None:
    """The first bytes of the prompt, at most BEGINNING_BYTES; None where the route takes none, or the body has none."""
    for field in _FIELDS.get(path, ()):
        if match := field.search(body):
            return body[match.end() : match.end() + BEGINNING_BYTES]
    return None
