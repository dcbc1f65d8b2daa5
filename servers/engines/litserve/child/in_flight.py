"""The requests that a LitServe worker has in flight, and how it leaves them once all are cancelled.

LitServe's loops take an exception of the API's code for its answer, and go on. So the signal raises `Cancelled` in that
code only: not in the queue, on the way back, or in the loop itself. An API with `enable_async` or a loop of its own is
not interrupted, since an exception could hit other requests or end the loop: only its queued requests are dropped.
"""

import inspect
import math
import os
import signal
import time
from ctypes import c_char
from multiprocessing.sharedctypes import RawArray
from types import FrameType
from typing import Any

from litserve.loops import BatchedStreamingLoop, StreamingLoop
from litserve.loops.base import _inject_context

from servers.engines.litserve.child.cancellations import INTERRUPT, Cancellations, Cancelled
from servers.engines.litserve.child.work import Batch, Listener, LoopKind

_CALL = _inject_context.__code__
_STREAMS = (BatchedStreamingLoop.run_batched_streaming_loop.__code__, StreamingLoop.run_streaming_loop.__code__)
# Code that caught `Cancelled` may be clearing up.
_RAISE_EVERY_S = 1.0
_ID_BYTES = 64


class InFlight(Listener):
    """Publishes the ids of a worker's batch to the main process, and handles its signal."""

    def __init__(self, cancellations: Cancellations) -> None:
        self.slots: list[Any] = []
        self._cancellations = cancellations
        self._slot: Any = None
        self._uids: list[str] = []
        self._is_deferred = False
        self._raise_s = -math.inf

    def allocate(self, api: Any, workers: int) -> None:
        """In the main process: shared memory for each worker, if it may be interrupted."""
        if LoopKind.of(api) in (LoopKind.ONE_BY_ONE, LoopKind.BATCHED):
            self.slots = [RawArray(c_char, _ID_BYTES * api.max_batch_size) for _ in range(workers)]

    def start(self, api: Any) -> None:
        """In a worker: find its memory and listen to the signal."""
        if not self.slots:
            return
        self._slot = self.slots[int(os.environ["LITSERVE_WORKER_ID"])]
        signal.signal(INTERRUPT, self._interrupt)
        if api.stream:  # LitServe calls this for each part of a stream, which can be left there, too
            original = api.format_encoded_response

            def format_encoded_response(part: Any) -> Any:
                if self._is_deferred and self._is_cancelled():
                    raise Cancelled
                return original(part)

            api.format_encoded_response = format_encoded_response

    def batch_began(self, batch: Batch) -> None:
        """Publish the batch."""
        if self._slot is not None:
            uids = [request.uid for request in batch.requests]
            self._slot.value = " ".join(uids).encode()[: len(self._slot)]
            self._uids = uids

    def batch_ended(self) -> None:
        """Publish that there is none."""
        if self._slot is not None:
            self._slot.value = b""
            self._uids = []
            self._is_deferred = False
            self._raise_s = -math.inf

    def _is_cancelled(self) -> bool:
        return bool(self._uids) and all(map(self._cancellations.has, self._uids))

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        # The signal may be late, or have been sent for the batch before.
        if not self._is_cancelled() or time.monotonic() - self._raise_s < _RAISE_EVERY_S:
            return
        if _is_in_api(frame):
            self._raise_s = time.monotonic()
            raise Cancelled
        self._is_deferred = True


def _is_in_api(frame: FrameType | None) -> bool:
    """Whether a loop has called the API's code here, or takes the next part of its stream."""
    while frame is not None:
        if frame.f_code is _CALL:
            return True
        if (
            frame.f_back is not None
            and frame.f_back.f_code in _STREAMS
            and frame.f_code.co_flags & inspect.CO_GENERATOR
        ):
            return True
        frame = frame.f_back
    return False
