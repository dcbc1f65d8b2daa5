"""The loop of a worker whose API is not async: one batch after the other, in the main thread.

Each request is decoded and response by itself, so that one that cannot be is its own failure. Only predict is of the
whole batch; where it fails for several, each is tried alone once, unless the settings say otherwise.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from typing import Any

from servers.engines.litserve.host.encode import EncodeError
from servers.engines.litserve.host.failure import BatchError, RefusalError, failure_of
from servers.engines.litserve.host.hooks import Hooks
from servers.engines.litserve.host.interrupt import Cancelled, Execution
from servers.engines.litserve.host.work import Work

_log = logging.getLogger("litport.worker")

Inbox = SimpleQueue[Sequence[Work] | None]


class SyncLoop:
    """Works on batches of the inbox until None comes.

    With `isolates_failures`, each request is tried alone once where predict fails for a batch of several.
    """

    def __init__(
        self, api: Any, hooks: Hooks, execution: Execution, inbox: Inbox, spans: Any = None, *, isolates_failures: bool
    ) -> None:
        self._hooks = hooks
        self._execution = execution
        self._inbox = inbox
        self._spans = spans
        self._timeout_s = api.request_timeout
        self._isolates_failures = isolates_failures
        self._is_batched = api.max_batch_size > 1
        self._perform = self._stream if api.stream else self._whole

    def run(self) -> None:
        """Work until the inbox says that nothing comes any more."""
        while (works := self._inbox.get()) is not None:
            self.work(works)

    def work(self, works: Sequence[Work]) -> None:
        """Work on one batch."""
        execution = self._execution
        now_s = time.monotonic()
        waiting = []
        for work in works:
            work.begun_s, work.batch_size = now_s, len(works)
            if work.is_cancelled:
                fail(work, RefusalError(499, "cancelled"))
            elif now_s - work.queued_s > self._timeout_s:
                fail(work, RefusalError(504, "Request timed out"))
            else:
                waiting.append(work)
        execution.works = waiting
        running = None if self._spans is None else self._spans.begin(waiting)
        try:
            if waiting:
                self._perform(waiting)
        except Cancelled as error:
            for work in waiting:
                fail(work, error)
        finally:
            execution.is_interruptible = False
            execution.works = ()
            _flush(works)
            if running is not None:
                self._spans.end(running)

    def _whole(self, works: Sequence[Work]) -> None:
        works = self._decode(works)
        if not works:
            return
        try:
            outputs = self._predict(works)
        except Exception as error:
            if not self._may_retry(works, error):
                _fail_all(works, error)
                return
            for work in works:
                self._whole_alone(work)
            return
        self._encode(works, outputs)

    def _whole_alone(self, work: Work) -> None:
        try:
            outputs = self._predict([work])
        except Exception as error:
            fail(work, error)
        else:
            self._encode([work], outputs)

    def _may_retry(self, works: Sequence[Work], error: Exception) -> bool:
        if not self._isolates_failures or len(works) == 1 or isinstance(error, BatchError):
            return False
        _log.warning("predict failed for a batch of %d (%s); each is tried alone", len(works), type(error).__name__)
        for work in works:
            work.is_retried = True
        return True

    def _decode(self, works: Sequence[Work]) -> list[Work]:
        hooks, execution = self._hooks, self._execution
        begin_s = time.monotonic()
        hooks.tell("on_before_decode_request")
        decoded = []
        for work in works:
            try:
                execution.is_interruptible = True
                hooks.prepare((work,))
                work.input = hooks.decode(work.value, work.context)
                decoded.append(work)
            except Exception as error:
                fail(work, error)
            finally:
                execution.is_interruptible = False
        hooks.tell("on_after_decode_request")
        spent_s = time.monotonic() - begin_s
        for work in works:
            work.decode_s = spent_s
        return decoded

    def _predict(self, works: Sequence[Work]) -> Sequence[Any]:
        """One output for each. Raises what predict raises, and BatchError."""
        hooks, execution = self._hooks, self._execution
        begin_s = time.monotonic()
        hooks.tell("on_before_predict")
        try:
            execution.is_interruptible = True
            outputs: Any
            if self._is_batched:
                contexts = [work.context for work in works]
                batch = hooks.batch([work.input for work in works], contexts)
                output = hooks.predict(batch, contexts)
                if not hooks.has_own_unbatch:
                    _check_rows(output, len(works))
                outputs = hooks.unbatch(output, contexts)
            else:
                outputs = [hooks.predict(works[0].input, works[0].context)]
        finally:
            execution.is_interruptible = False
            spent_s = time.monotonic() - begin_s
            for work in works:
                work.predict_s += spent_s
        hooks.tell("on_after_predict")
        return _rows(outputs, len(works))

    def _encode(self, works: Sequence[Work], outputs: Iterable[Any]) -> None:
        hooks, execution = self._hooks, self._execution
        begin_s = time.monotonic()
        hooks.tell("on_before_encode_response")
        responses: list[Any] = []
        for work, output in zip(works, outputs, strict=True):
            try:
                execution.is_interruptible = True
                responses.append(hooks.encode(output, work.context))
            except Exception as error:
                responses.append(error)
            finally:
                execution.is_interruptible = False
        hooks.tell("on_after_encode_response")
        spent_s = time.monotonic() - begin_s
        for work, response in zip(works, responses, strict=True):
            work.encode_s = spent_s  # each waits for all
            try:
                if isinstance(response, Exception):
                    raise response
                work.reply.whole(response)
                work.is_over = True
            except Exception as error:
                fail(work, error)

    def _stream(self, works: Sequence[Work]) -> None:
        works = self._decode(works)
        if not works:
            return
        try:
            self._parts(works)
        except Exception as error:
            if any(work.has_parts for work in works) or not self._may_retry(works, error):
                _fail_all(works, error)
                return
            for work in works:
                try:
                    self._parts([work])
                except Exception as own_error:
                    fail(work, own_error)

    def _parts(self, works: Sequence[Work]) -> None:
        hooks, execution = self._hooks, self._execution
        begin_s = time.monotonic()
        contexts: Any = [work.context for work in works]
        hooks.tell("on_before_predict")
        execution.is_interruptible = True
        value: Any = [work.input for work in works]
        if self._is_batched:
            value = hooks.batch(value, contexts)
        else:
            value, contexts = value[0], contexts[0]
        output = hooks.predict(value, contexts)
        if self._is_batched:
            output = hooks.unbatch(output, contexts)
        execution.is_interruptible = False
        hooks.tell("on_after_predict")
        hooks.tell("on_before_encode_response")
        execution.is_interruptible = True
        steps = iter(hooks.encode(output, contexts))
        try:
            for step in steps:
                execution.is_interruptible = False
                self._send(works, _rows(step, len(works)) if self._is_batched else (step,))
                if all(work.is_over for work in works):
                    break
                execution.check()
                execution.is_interruptible = True
        finally:
            execution.is_interruptible = False
            close = getattr(steps, "close", None)
            if close is not None:
                close()
            for work in works:
                work.predict_s += time.monotonic() - begin_s
        hooks.tell("on_after_encode_response")
        for work in works:
            if not work.is_over:
                work.reply.finish()
                work.is_over = True

    def _send(self, works: Sequence[Work], parts: Sequence[Any]) -> None:
        for work, part in zip(works, parts, strict=True):
            if work.is_over or work.is_cancelled:
                continue
            if part is None and self._is_batched:  # it is finished, and the others go on
                work.reply.finish()
                work.is_over = True
            else:
                work.reply.part(self._hooks.format_part(part))
                work.has_parts = True
        _flush(works)


def _flush(works: Iterable[Work]) -> None:
    for work in works:
        work.reply.flush()


def _check_rows(output: Any, expected: int) -> None:
    if isinstance(output, dict | str | bytes | set | frozenset):
        raise BatchError(
            f"LitAPI.predict returned a {type(output).__name__} for a batch of {expected}; "
            "expected a list with one output for each request"
        )


def _rows(outputs: Any, expected: int) -> Sequence[Any]:
    """The outputs as a list of one for each request. Raises BatchError."""
    _check_rows(outputs, expected)
    rows = outputs if isinstance(outputs, list | tuple) else list(outputs)
    if len(rows) != expected:
        raise BatchError(
            f"LitAPI.predict returned {len(rows)} outputs for a batch of {expected}; "
            "expected one for each request (of a stream, None for one that is finished)"
        )
    return rows


def _fail_all(works: Iterable[Work], error: Exception) -> None:
    for index, work in enumerate(works):
        fail(work, error, log=index == 0)


def fail(work: Work, error: BaseException, *, log: bool = True) -> None:
    """Answer one with the error, where it has no whole answer yet; what is a fault of the API goes into the log."""
    if work.is_over:
        return
    work.is_over = True
    if isinstance(error, Cancelled):
        error = RefusalError(499, "cancelled")
    failure = work.failure = failure_of(error, work.value)
    if not failure.is_expected and log:
        where = "" if isinstance(error, EncodeError) else " while it worked on a request"
        _log.error("the API failed%s: %s", where, error, exc_info=None if isinstance(error, EncodeError) else error)
    elif work.has_parts and log and not work.is_cancelled:
        _log.error("a stream broke off: %s", error)
    work.reply.fail(failure)
