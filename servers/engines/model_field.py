"""The `model` of a request's body, replaced where it stands: everything else in the body stays as it was sent.

A model may have another name where it runs than callers know it by. The body has been read strictly before.
"""

import re

import msgspec

# A key `model`, however its letters are escaped, with its value. Within a JSON string every quote is escaped, so that
# only a key can look like this; it may be one of an inner object.
_LETTERS = b"".join(rb"(?:%c|\\u00%x[%x%X])" % (letter, letter >> 4, letter & 15, letter & 15) for letter in b"model")
_FIELD = re.compile(rb'"(?<!\\")' + _LETTERS + rb'"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*"|null)')
_FORM_FIELD = re.compile(rb'(name="model"\r\n(?:[^\r\n]+\r\n)*\r\n)[^\r\n]*(\r\n--)')
_NO_OUTLINE = bytes(set(range(256)) - set(b'"[]{}'))


def name_model(body: bytes, content_type: str, name: str) -> bytes:
    """The body with this `model`: a JSON object gets one where it has none, a form keeps what it has."""
    if content_type.startswith("multipart/form-data"):
        return _FORM_FIELD.sub(lambda match: match[1] + name.encode() + match[2], body)
    value = msgspec.json.encode(name)
    parts: list[bytes] = []
    depth = copied = looked = 0
    for match in _FIELD.finditer(body):
        depth += _descent(body[looked : match.start()])
        looked = match.end()
        if depth == 1:  # of two keys of one object, which the strict reader lets pass in a large body, both
            parts += body[copied : match.start(1)], value
            copied = match.end(1)
    if parts:
        return b"".join((*parts, body[copied:]))
    head, brace, fields = body.partition(b"{")
    comma = b"" if fields.lstrip(b" \t\r\n").startswith(b"}") else b","
    return b"".join((head, brace, b'"model":', value, comma, fields)) if brace else body


def _descent(text: bytes) -> int:
    """How many more objects and lists begin than end in a piece of JSON that has whole strings only."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    outline = b"".join(text.translate(None, _NO_OUTLINE).split(b'"')[::2])
    return sum(outline.count(mark) for mark in (b"{", b"[")) - sum(outline.count(mark) for mark in (b"}", b"]"))
