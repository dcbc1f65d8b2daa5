"""What a LitServe worker does at the moment: the one place that hears it from LitServe and tells our listeners.

LitServe's callbacks learn neither which request they are about nor where a batch ends. `WorkerState` gets the first
from the queue, the second from the loop's next look into the queue, and the steps between from the callbacks.

This folder relies on these internals of LitServe 0.2.19. `test_litserve_still_has[...]` checks each of them by name:

- `_DEFAULT_LOG_FORMAT`: the format of the handler that LitServe gives its logger.
- `_MCP_AVAILABLE`: a flag of `litserve.server` that `run` reads; off, LitServe does without mcp.
- `_SENTINEL_VALUE`: the queue's word to stop is a tuple of four None.
- `_inject_context`: the loops that are not async call the API's methods only through this function.
- `_init_manager`: `run` calls it before it starts anything; it fills `litapi_request_queues` and sets `_transport`.
- `_inference_workers_config_for_api`: has one item for each worker of an API.
- `_start_worker_monitoring`: `run` calls it last; `inference_workers` then has the workers' processes.
- `check_cuda_with_nvidia_smi`: counts GPUs without an import of torch.
- `format_encoded_response`: the loops call it for each part of a stream.
- `litapi_request_queues`: the queue of each API path; API servers, specs and workers get theirs from here.
- `register_endpoints`: the constructor calls it; afterwards the app has a route at the API's path.
- `LITSERVE_WORKER_ID`: the number of a worker, set before `on_before_setup(lit_api=...)`, which comes before the setup.
- `LitServer-`: `run` forks the API servers under this name and a number, and passes its other options to uvicorn.
- `answer_tuple`: `send((uid, (answer, status, kind, worker)), consumer_id=...)`; a stream ends with FINISH_STREAMING.
- `call_order`: when each loop calls its callbacks and sends its answers.
- `exceptions`: a loop sends an HTTPException back as it is, without a line in the log.
- `loops`: LitServe chooses `LitAPI.loop` from four loops.
- `one_pickle`: queue, transport and callbacks are arguments of one process, so that they share their parts in it, too.
- `queue_calls`: requests are put by `put` or `put_nowait` and taken by `get` or `get_nowait`.
- `queue_tuple`: a request in the queue is (consumer, uid, `time.monotonic()`, body).
- `stream_loops`: `run_streaming_loop` and `run_batched_streaming_loop` iterate the API's stream themselves.
- `task_names`: an async loop names the task of a request `..._<uid>`.
- `transport`: answers go through an object with `send`, `areceive` and `close`.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextvars import ContextVar
from multiprocessing import queues
from typing import Any

from litserve.callbacks import Callback
from litserve.transport.base import MessageTransport
from litserve.utils import _DEFAULT_LOG_FORMAT, LitAPIStatus, LoopResponseType, PickleableHTTPException

from servers.engines import child_logging
from servers.engines.litserve.api import OUT_OF_MEMORY, is_out_of_memory
from servers.engines.litserve.child.cancellations import Cancellations, Cancelled
from servers.engines.litserve.child.exchange import current_exchange
from servers.engines.litserve.child.work import Batch, Listener, LoopKind, Request, Step, Trace

# Of the worker or, where its API is async, of the task.
_current_batch: ContextVar[Batch | None] = ContextVar("current_batch", default=None)


class WorkerState(Callback):  # type: ignore[misc] # LitServe ships no types
    """The requests that a worker has taken and not answered, and its batch."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._kind = LoopKind.CUSTOM
        self._requests: dict[str, Request] = {}

    def on_before_setup(self, lit_api: Any, **_: Any) -> None:
        """In a worker, before all else."""
        # The process group gets SIGTERM, and the requests in flight must still be answered. Not SIG_IGN, which every
        # program that a plug-in starts would inherit.
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        child_logging.install(self._request_ids, _DEFAULT_LOG_FORMAT)
        self._kind = LoopKind.of(lit_api)
        for listener in self._listeners:
            listener.start(lit_api)

    def on_after_setup(self, **_: Any) -> None:
        """The API may have set up logging."""
        child_logging.mark_handlers()

    def await_request(self) -> None:
        """The loop asks for its next request."""
        if _current_batch.get() is not None:
            _current_batch.set(None)
            for listener in self._listeners:
                listener.batch_ended()

    def take(self, request: Request) -> None:
        """A request has come out of the queue."""
        self._requests[request.uid] = request
        for listener in self._listeners:
            listener.request_taken(request)
        if self._kind is LoopKind.ONE_BY_ONE:  # LitServe does not announce the decoding of a stream
            self._begin([request])

    def on_before_decode_request(self, **_: Any) -> None:
        """A batch is complete, or a request of an async API has its task."""
        if self._kind is LoopKind.ASYNC:
            # The name of the task is the only way to its request.
            uid = task.get_name().rpartition("_")[2] if (task := asyncio.current_task()) else ""
            self._begin([self._requests[uid]] if uid in self._requests else [])
        elif self._kind is not LoopKind.ONE_BY_ONE:
            self._begin(self._unbegun())
        self._end_step("batch_wait")

    def on_after_decode_request(self, **_: Any) -> None:
        """The batch is decoded."""
        self._end_step("decode")

    def on_before_predict(self, **_: Any) -> None:
        """Of a stream without batches, LitServe's first word."""
        if self._kind is LoopKind.CUSTOM and (requests := self._unbegun()):
            self._begin(requests)
        self._end_step("batch_wait")

    def on_before_encode_response(self, **_: Any) -> None:
        """The batch is predicted and unbatched; of a stream, the generator is made."""
        self._end_step("predict")

    def on_after_encode_response(self, **_: Any) -> None:
        """The batch is encoded; of a stream, generated."""
        self._end_step("encode")

    def end(self, uid: str, error: Any) -> None:
        """The last part of an answer has been sent, or an error in its place."""
        if request := self._requests.pop(uid, None):  # one that could not be sent is followed by an error
            for listener in self._listeners:
                listener.request_answered(request, error)

    def _unbegun(self) -> list[Request]:
        return [request for request in list(self._requests.values()) if request.batch is None]

    def _begin(self, requests: Sequence[Request]) -> None:
        batch = Batch(requests) if requests else None
        _current_batch.set(batch)
        if batch is not None:
            for request in requests:
                request.batch = batch
            for listener in self._listeners:
                listener.batch_began(batch)

    def _end_step(self, step: Step) -> None:
        batch = _current_batch.get()
        if batch is None or (step == "batch_wait" and not batch.is_waiting):
            return
        batch.is_waiting = False
        begin_s, batch.step_begin_s = batch.step_begin_s, time.monotonic()
        for listener in self._listeners:
            listener.step_ended(batch, step, batch.step_begin_s - begin_s)

    def _request_ids(self) -> str:
        if self._kind is LoopKind.ASYNC:
            batch = _current_batch.get()
            requests = batch.requests if batch is not None else ()
        else:  # a plug-in's own threads have no batch
            requests = list(self._requests.values())
        return ",".join(request.request_id for request in requests if request.request_id)


class RequestQueue(queues.Queue):  # type: ignore[type-arg] # the base class cannot be indexed at run time
    """Pipes for LitServe's requests, in place of a queue in its manager.

    A worker that batches asks its queue a thousand times a second. In the manager each of these would be a call to
    another process: a tenth of a core for a model at rest. Between the processes a request has a fifth part: its id
    and trace. Cancelled ones do not come out; they are answered on `transport`, as their API server waits for that.
    """

    def __init__(self, state: WorkerState, cancellations: Cancellations, transport: Any, stream: bool) -> None:
        super().__init__(ctx=multiprocessing.get_context("spawn"))
        kind = LoopResponseType.STREAMING if stream else LoopResponseType.REGULAR
        self._parts = (state, cancellations, transport, kind)

    def __getstate__(self) -> Any:
        return super().__getstate__(), self._parts

    def __setstate__(self, state: Any) -> None:
        base, self._parts = state
        super().__setstate__(base)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """In an API server: queue a request of the current exchange."""
        origin: tuple[str, Trace | None] = ("", None)
        if exchange := current_exchange.get():
            exchange.note_queued(str(obj[1]))  # the ids of specs are no strings
            origin = (exchange.request_id, exchange.trace)
        super().put((*obj, origin), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """In a worker: the next request whose client still waits."""
        state, cancellations, transport, kind = self._parts
        state.await_request()
        while True:
            *item, (request_id, trace) = super().get(block, timeout)
            consumer, uid, queued_s, _ = item
            if uid is None:  # LitServe's word to stop
                return tuple(item)
            if not cancellations.has(str(uid)):
                state.take(Request(str(uid), request_id, trace, queued_s))
                return tuple(item)
            answer = (Cancelled(), LitAPIStatus.ERROR, kind, int(os.environ["LITSERVE_WORKER_ID"]))
            transport.send((uid, answer), consumer_id=consumer)
            cancellations.remove(str(uid))


class AnswerTransport(MessageTransport):  # type: ignore[misc] # LitServe ships no types
    """LitServe's way back for answers, which shows when a request is over."""

    def __init__(self, transport: Any, state: WorkerState) -> None:
        self._transport = transport
        self._state = state

    def send(self, item: Any, consumer_id: int) -> None:
        """In a worker: send an answer, or a part of a stream; an error is sent while it is handled."""
        uid, (answer, status, kind, worker) = item
        if status == LitAPIStatus.ERROR and is_out_of_memory(sys.exc_info()[1]):
            answer = PickleableHTTPException(503, OUT_OF_MEMORY)
            item = uid, (answer, status, kind, worker)
        self._transport.send(item, consumer_id=consumer_id)
        is_whole = kind is LoopResponseType.REGULAR and status == LitAPIStatus.OK
        if is_whole or status in (LitAPIStatus.FINISH_STREAMING, LitAPIStatus.ERROR):
            self._state.end(str(uid), answer if status == LitAPIStatus.ERROR else None)

    def areceive(self, *args: Any, **options: Any) -> Any:
        """In an API server: the next answer."""
        return self._transport.areceive(*args, **options)

    def close(self, *args: Any, **options: Any) -> None:
        """No more answers."""
        self._transport.close(*args, **options)
