"""Text as its tokens come: whole characters only, and nothing that may still turn out to be a stop string.

A character can span several tokens, and a tokenizer may write a token differently after its neighbours; so a window of
the last tokens is decoded again for each new one. It never gives out text that it would have to take back.
"""

from collections.abc import Sequence
from typing import Any

_UNFINISHED = "\ufffd"  # what decoders write for bytes that are no whole character, yet


class TextStream:
    """The text of one answer. `stopped` becomes true when a stop string appeared; the text ends before it."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._window = 0  # where the tokens start that are decoded again
        self._read = 0  # up to here their text has been taken
        self._held = ""  # taken, but perhaps the beginning of a stop string

    def push(self, token_id: int) -> str:
        """Take one more token; the text that is now certain, often one token's, sometimes none."""
        self._ids.append(token_id)
        known = self._decode(self._window, self._read)
        text = self._decode(self._window, len(self._ids))
        if text.endswith(_UNFINISHED):
            return ""
        self._window, self._read = self._read, len(self._ids)
        return self._release(text[len(known) :])

    def finish(self) -> str:
        """The rest, once no token will come any more."""
        if self.stopped:
            return ""
        known = self._decode(self._window, self._read)
        text = self._release(self._decode(self._window, len(self._ids))[len(known) :])
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _decode(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(
            self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _release(self, text: str) -> str:
        held = self._held + text
        found = min((at for stop in self._stop if (at := held.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return held[:found]
        keep = max((_overlap(held, stop) for stop in self._stop), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
