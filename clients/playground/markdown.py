"""Markdown of a model, so that it is drawn as Markdown only: HTML and pictures stay text.

Code is left as it is, since Markdown draws no HTML in it. `original` takes `without_html` back.
"""

import html
import re
from collections.abc import Callable

# A character behind a backslash; fenced code, perhaps not yet closed; code between equal runs of backticks, within a
# paragraph.
_CODE = re.compile(
    r"(\\.)|((?:^|(?<=\n)) {0,3}(`{3,})[^`\n]*(?:\n[\s\S]*?(?:\n {0,3}\3`*(?=\n|$)|$)|$)"
    r"|(?<!`)(`+)(?!`)(?:(?!\n\s*\n)[\s\S])+?(?<!`)\4(?!`))"
)


def without_html(text: str) -> str:
    """The text with `<`, `&` and the beginning of a picture as entities."""
    return _outside_of_code(text, _escape)


def original(text: str) -> str:
    """The text that `without_html` was given."""
    return _outside_of_code(text, lambda part: html.unescape(part.replace("!&#91;", "![")))


def _escape(part: str) -> str:
    return part.replace("&", "&amp;").replace("<", "&lt;").replace("![", "!&#91;")


def _outside_of_code(text: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for match in _CODE.finditer(text):
        if match[1]:
            continue
        parts += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, change(text[end:])])
