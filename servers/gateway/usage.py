"""How many tokens a request took, by its process's own count, or read from the end of its answer without decoding it.

OpenAI's `usage` stands at the end of a JSON answer, and in one of the last events of a stream if the request asked for
it; Anthropic's has other names. Text in the answer cannot be mistaken for it: within a JSON string, quotes are escaped.
"""

import re
from dataclasses import dataclass

from servers.engines.connection import TokenCount

_INPUT = re.compile(rb'"(?:prompt|input)_tokens": ?(\d+)')
_OUTPUT = re.compile(rb'"(?:completion|output)_tokens": ?(\d+)')


@dataclass(frozen=True)
class Usage:
    """Tokens of a request; None where the answer does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def total(self) -> int | None:
        """Input and output together; None when neither is known."""
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.output_tokens or 0)

    def times(self, prompts: int, choices: int) -> "Usage":
        """That of so many prompts, and so many answers in all, where this is of one."""
        inputs, outputs = self.input_tokens, self.output_tokens
        return Usage(inputs and inputs * prompts, outputs and outputs * choices)


NO_USAGE = Usage()


def read_usage(tokens: TokenCount | None, tail: bytes) -> Usage:
    """The usage by the count of the model's process, if there is one, else by the last bytes of the answer."""
    if tokens is not None and tokens.input_tokens is not None:
        return Usage(tokens.input_tokens, tokens.output_tokens)
    inputs, outputs = _INPUT.findall(tail), _OUTPUT.findall(tail)
    return Usage(int(inputs[-1]) if inputs else None, int(outputs[-1]) if outputs else None)
