"""glibc's memory allocator, kept from giving back to the kernel what the next batch needs again.

By default it returns every large block at once, and a model that computes on the CPU asks for the same blocks in every
forward: the kernel then clears the same pages over and over. Measured on two cores, one thread: an image classifier
1.5 times as fast at batch 2 and 1.9 times at batch 8, vLLM 1.08 times; for about 350 MB more of resident memory. See
docs/benchmarks.md. It refuses to overrule a choice that somebody has made.
"""

import os
from collections.abc import Mapping

_KEPT_BYTES = 1024**3


def environ() -> Mapping[str, str]:
    """The variables (mallopt(3)) for a child that computes on the CPU; none where one is set or preloaded."""
    if os.environ.get("LD_PRELOAD") or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return {}
    kept = str(_KEPT_BYTES)
    return {"MALLOC_MMAP_THRESHOLD_": kept, "MALLOC_TRIM_THRESHOLD_": kept}
