"""Variables of the user's shell that change what vLLM or LitServe serve."""

import os
from collections.abc import Iterator

from configs.layer import MASK
from configs.shape import sounds_secret

_PASSED_ON = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "LD_PRELOAD", "OMP_NUM_THREADS")
# Those that Litport does not pass on, and what takes their place.
_REPLACED = {
    "LIT_SERVER_API_KEY": "not passed on; callers' keys are auth.api_keys",
    "VLLM_API_KEY": "not passed on; callers' keys are auth.api_keys",
    "VLLM_HOST_IP": "not passed on; set it in models.NAME.env",
}


def describe() -> Iterator[str]:
    """Each of them that is set, with its value, or what becomes of it."""
    for name, value in sorted(os.environ.items()):
        if treatment := _REPLACED.get(name):
            yield f"{name} ({treatment})"
        elif name in _PASSED_ON or name.startswith("VLLM_"):
            yield f"{name}={MASK if sounds_secret(name) else repr(value)}"


def hint() -> str:
    """The end of an error of a start: those that reach the model's process; "" where there are none."""
    lines = [line for line in describe() if "=" in line]
    return f" (set in the environment: {', '.join(lines)})" if lines else ""
