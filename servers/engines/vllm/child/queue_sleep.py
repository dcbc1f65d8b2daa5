"""A sleep in place of a spin, for whoever waits at vLLM's queue in shared memory.

vLLM 0.32 passes each step from the engine core to the worker and back through a ring of shared memory, and a reader
calls `sched_yield` in a loop for a second after its last message (`SpinCondition` in
vllm/distributed/device_communicators/shm_broadcast.py). While the worker computes, the engine core thus keeps a core
busy; of two cores that is one. To end the spin early is no way out: a reader that misses the notification then waits up
to 5 s (`SHM_READER_RECHECK_INTERVAL_MS`).

vLLM loads this module in each of its processes, as a plug-in of the group `vllm.general_plugins`.
"""

import os
import time

SLEEP_VARIABLE = "LITPORT_VLLM_QUEUE_SLEEP_S"


def register() -> None:
    """Let readers sleep for so many seconds as the variable says; where it is not set, change nothing."""
    text = os.environ.get(SLEEP_VARIABLE)
    if text is None:
        return
    from vllm.distributed.device_communicators import shm_broadcast

    sleep_s = float(text)
    shm_broadcast.sched_yield = lambda: time.sleep(sleep_s)
