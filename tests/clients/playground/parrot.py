"""A chat model that needs no model: it says the last message again, word by word, as slowly as it is told.

The word "pause" takes a second, the word "fail" breaks the answer off, the word "die" ends the process.
"""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import litserve as ls


class ParrotAPI(ls.LitAPI):  # type: ignore[misc] # litserve ships no complete types
    def __init__(self, pause_s: float = 0.02, says: str = "") -> None:
        super().__init__(spec=ls.OpenAISpec())
        self.pause_s = pause_s
        self.says = says

    def setup(self, device: str) -> None:
        pass

    def predict(self, x: Any) -> Iterator[dict[str, Any]]:
        words = [*self.says.split(), *x.messages[-1].content.split(" ")]
        for count, word in enumerate(words, start=1):
            if word == "fail":
                raise ValueError("told to fail")
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1 if word == "pause" else self.pause_s)
            tokens = {"prompt_tokens": len(x.messages), "completion_tokens": count}
            yield {"role": "assistant", "content": f"{word} ", **tokens}

    def encode_response(self, output: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from output
