"""Among how many processes vLLM divides a model, and how many copies of it there are, by its options."""

import math
from collections.abc import Mapping
from typing import Any

SPLIT = ("tensor-parallel-size", "pipeline-parallel-size")
"""The weights are divided by these."""
COPIES = ("data-parallel-size",)
"""Each has all of the weights."""


def size(args: Mapping[str, Any], options: tuple[str, ...]) -> int:
    """The product of these options; one that is not set, or that vLLM will refuse, counts as 1."""
    texts = (str(args.get(option) or 1) for option in options)
    return math.prod(int(text) if text.isdecimal() else 1 for text in texts)
