"""What a LitServe worker has in hand, and how it leaves work that is cancelled (`litserve_cancel` says when).

LitServe's loops take an exception of the API's code for its answer, and go on. So the signal raises `Cancelled` there
and nowhere else: not in the queue, on the way back, or in the loop itself. It never interrupts an API with
`enable_async` or a loop of its own, where an exception could hit the work of others or end the loop: of those only
queued requests are dropped.
"""

import inspect
import math
import multiprocessing
import os
import signal
import time
from ctypes import c_char
from multiprocessing import queues
from multiprocessing.sharedctypes import RawArray
from types import FrameType
from typing import Any

from litserve.callbacks import Callback
from litserve.loops import BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop
from litserve.loops.base import _inject_context
from litserve.utils import LitAPIStatus, LoopResponseType, PickleableHTTPException

from servers.engines.litserve.child.cancel import INTERRUPT, Marks, queued_as
from servers.engines.litserve.child.context import Context, travelling

_LOOPS = (BatchedLoop, BatchedStreamingLoop, SingleLoop, StreamingLoop)
# LitServe's loops call the API through this function only, and take the parts of a stream from a generator.
_CALL = _inject_context.__code__
_STREAMS = (BatchedStreamingLoop.run_batched_streaming_loop.__code__, StreamingLoop.run_streaming_loop.__code__)
# Code that caught `Cancelled` may be clearing up.
_RAISE_EVERY_S = 1.0
_ID_BYTES = 64


class Cancelled(PickleableHTTPException):  # type: ignore[misc] # LitServe ships no types
    """Raised in an API's code when nobody waits for its answer. LitServe sends HTTPExceptions back without a word."""

    def __init__(self) -> None:
        super().__init__(499, "cancelled")


class Hand(Callback):  # type: ignore[misc] # LitServe ships no types
    """What a worker has in hand, from the queue until the next request is asked for, and its end of the signal."""

    def __init__(self, marks: Marks) -> None:
        self.slots: list[Any] = []
        self._marks = marks
        self._limit = 1
        self._slot: Any = None
        self._uids: list[str] = []
        self._begun = False
        self._refused = False
        self._raised_at_s = -math.inf

    def equip(self, api: Any, worker_count: int) -> None:
        """In the main process: give each worker the memory to say what it has in hand, if it may be interrupted."""
        if not api.enable_async and type(api.loop) in _LOOPS:
            self._limit = api.max_batch_size
            self.slots = [RawArray(c_char, _ID_BYTES * self._limit) for _ in range(worker_count)]

    def on_after_setup(self, lit_api: Any, **_: Any) -> None:
        """In a worker, before its first request."""
        if not self.slots:
            return
        self._slot = self.slots[int(os.environ["LITSERVE_WORKER_ID"])]
        signal.signal(INTERRUPT, self._interrupt)
        if lit_api.stream:  # called for each part of a stream, where it can be left as well as in the API's code
            original = lit_api.format_encoded_response

            def format_encoded_response(part: Any) -> Any:
                if self._refused and self._is_cancelled():
                    raise Cancelled
                return original(part)

            lit_api.format_encoded_response = format_encoded_response

    def on_before_decode_request(self, **_: Any) -> None:
        """The batch is complete."""
        if self._uids and not self._begun:
            self._begin()

    def put_down(self) -> None:
        """If a batch has begun, it is over: the loop asks for the next request."""
        if self._begun:
            self._slot.value = b""
            self._uids.clear()
            self._begun = self._refused = False
            self._raised_at_s = -math.inf

    def take(self, uid: str) -> None:
        """A request has come."""
        if self._slot is not None:
            self._uids.append(uid)
            if self._limit == 1:  # of a stream, nobody is told when it is decoded
                self._begin()

    def _begin(self) -> None:
        self._slot.value = " ".join(self._uids).encode()[: len(self._slot)]
        self._begun = True

    def _is_cancelled(self) -> bool:
        return self._begun and all(map(self._marks.has, self._uids))

    def _interrupt(self, _number: int, frame: FrameType | None) -> None:
        # The signal may be late, or have been sent for the last batch.
        if not self._is_cancelled() or time.monotonic() - self._raised_at_s < _RAISE_EVERY_S:
            return
        if _is_work(frame):
            self._raised_at_s = time.monotonic()
            raise Cancelled
        self._refused = True


def _is_work(frame: FrameType | None) -> bool:
    """Whether this is the API's code as a loop has called it, and not the queue, the way back, or the loop itself."""
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


class CancellableQueue(queues.Queue):  # type: ignore[type-arg] # the base class cannot be indexed at run time
    """multiprocessing's queue of LitServe's requests (queue number, id, `time.monotonic()`, body).

    Between the processes each has a fifth part, which `context` gets. Cancelled ones do not come out: they are
    answered on `transport`, as their API server waits for an answer.
    """

    def __init__(self, marks: Marks, hand: Hand, context: Context, transport: Any, stream: bool) -> None:
        super().__init__(ctx=multiprocessing.get_context("spawn"))
        kind = LoopResponseType.STREAMING if stream else LoopResponseType.REGULAR
        self._ours = (marks, hand, context, transport, kind)

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._ours

    def __setstate__(self, state: Any) -> None:
        theirs, self._ours = state
        super().__setstate__(theirs)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """In an API server: note the id under which the request is queued."""
        uids = queued_as.get()
        if uids is not None:
            uids.append(str(obj[1]))
        super().put((*obj, travelling.get()), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """In a worker: the next request that somebody waits for."""
        marks, hand, context, transport, kind = self._ours
        hand.put_down()
        while True:
            *request, travelled = super().get(block, timeout)
            uid = str(request[1])
            if not marks.has(uid):
                if request[1] is not None:  # LitServe's word to stop is a tuple of None
                    hand.take(uid)
                    context.take(uid, travelled, request[2])
                return tuple(request)
            answer = (Cancelled(), LitAPIStatus.ERROR, kind, int(os.environ["LITSERVE_WORKER_ID"]))
            transport.send((request[1], answer), consumer_id=request[0])
            marks.remove(uid)
