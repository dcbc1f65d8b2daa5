"""The text of a token stream, released as soon as it is final: whole characters, and no part of a stop string.

A character can span several tokens, and the text of a token can depend on its neighbours, so a window of the last
tokens is decoded again for each new one.
"""

from collections.abc import Sequence
from typing import Any

_PARTIAL = "\ufffd"  # a decoder writes it for the bytes of an incomplete character


class TextStream:
    """The text of one answer. `stopped` becomes true at a stop string; the text ends before it."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0  # the first token that is decoded again
        self._read = 0  # the first token whose text is not in the buffer yet
        self._buffer = ""  # text that may be the beginning of a stop string

    def push(self, token_id: int) -> str:
        """Add a token and return the text that is now final: often that of one token, sometimes none."""
        self._ids.append(token_id)
        prefix = self._decode(self._window, self._read)
        text = self._decode(self._window, len(self._ids))
        if text.endswith(_PARTIAL):
            return ""
        self._window, self._read = self._read, len(self._ids)
        return self._release(text[len(prefix) :])

    def finish(self) -> str:
        """The remaining text, after the last token."""
        if self.stopped:
            return ""
        prefix = self._decode(self._window, self._read)
        text = self._release(self._decode(self._window, len(self._ids))[len(prefix) :])
        if self.stopped:
            return text
        text, self._buffer = text + self._buffer, ""
        return text

    def _decode(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(
            self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _release(self, text: str) -> str:
        text = self._buffer + text
        end = min((index for stop in self._stop if (index := text.find(stop)) >= 0), default=-1)
        if end >= 0:
            self.stopped = True
            return text[:end]
        end = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._buffer = text[end:]
        return text[:end]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
