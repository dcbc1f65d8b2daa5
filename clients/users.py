"""Locust users that ask models, and note when each part of an answer comes.

The same classes make the load of `litport bench` and of `locust -f clients/locustfile.py`. Their calls come from
`environment.calls`. Latency counts from the time a call was due, so a late user cannot hide a slow server. A failed
request is a record like any other.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from gevent.event import Event
from gevent.lock import Semaphore
from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust import User, constant, task
from locust.exception import StopUser

from clients import events
from clients.answers import EVENT, LINE, decode, error_message, note_usage
from clients.call_queue import CallQueue
from clients.record import Call, RequestRecord

_CONNECT_TIMEOUT_S = 10
_BLOCK_BYTES = 64 * 1024
# The Server header of llama.cpp, which closes a connection after a stream without saying so before (b11434): the next
# request of a user who is quick was lost in the end of it.
_LEAVES_AFTER_STREAM = "llama.cpp"


class Calls(Protocol):
    """Gives users their calls, and takes their records."""

    def take(self) -> Call | None:
        """The next call, once it is due, or None when there is no more."""
        ...

    def due_s(self, call: Call) -> float:
        """When the call was due."""
        ...

    def finish(self, call: Call, record: RequestRecord) -> None:
        """Take the record of a call."""
        ...


class ModelUser(User):
    """Asks one call after the other over one connection. Subclasses know how an answer is read."""

    abstract = True
    wait_time = constant(0)
    answer_timeout_s = 600.0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._calls: Calls = environment.calls
        self._headers = dict(getattr(environment, "headers", {}))
        self._client = self._connect()

    def on_stop(self) -> None:
        """Close the connection."""
        self._client.close()

    @task
    def ask(self) -> None:
        """Make the next call."""
        call = self._calls.take()
        if call is None:
            raise StopUser
        due_s = self._calls.due_s(call)
        record = RequestRecord(
            index=call.index, scheduled_s=due_s, sent_s=time.monotonic(), asked_tokens=call.asked_tokens
        )
        length = 0
        try:
            length = self._exchange(call, record)
        except (OSError, HTTPParseError, msgspec.DecodeError) as problem:
            record.error = f"{type(problem).__name__}: {problem}"
        record.end_s = record.end_s or time.monotonic()
        self._calls.finish(call, record)
        self.environment.events.request.fire(
            request_type=type(self).__name__,
            name=call.path,
            response_time=record.e2e_s * 1000,
            response_length=length,
            exception=RuntimeError(record.error) if record.error else None,
            context={},
        )

    def read(self, response: Any, record: RequestRecord) -> int:
        """Read a successful answer to its end into the record; returns its size in bytes."""
        raise NotImplementedError

    def _exchange(self, call: Call, record: RequestRecord) -> int:
        headers = {"Content-Type": call.content_type, **self._headers}
        response = self._client.request("POST", call.path, body=call.body, headers=headers)
        record.status = response.status_code
        try:
            if record.status != 200:
                body = bytes(response.read())
                record.error = f"status {record.status}: {error_message(body)}"
                return len(body)
            size = self.read(response, record)
            record.end_s = time.monotonic()
            return size
        finally:
            response.release()
            if response.get("server") == _LEAVES_AFTER_STREAM:
                self._client.close()
                self._client = self._connect()

    def _connect(self) -> HTTPClient:
        return HTTPClient.from_url(
            self.host or self.environment.host,
            connection_timeout=_CONNECT_TIMEOUT_S,
            network_timeout=self.answer_timeout_s,
            block_size=_BLOCK_BYTES,
        )


class CompletionUser(ModelUser):
    """Reads a stream of server-sent events as OpenAI's completions and chat completions send them."""

    def read(self, response: Any, record: RequestRecord) -> int:
        """Note each event that has content; usage comes with the last one (`stream_options.include_usage`)."""
        size = 0
        finished = has_text = False
        for block in events.blocks(response):
            now_s = time.monotonic()
            size += len(block)
            event = events.parse(block)
            if event is None:
                continue
            if event.data == b"[DONE]":
                finished = True
            elif event.name == "error":
                record.error = record.error or f"error event: {error_message(event.data)}"
            elif event.data:
                has_text = self._take(event.data, record, now_s) or has_text
        if not finished and record.error is None:
            record.error = "the stream ended without [DONE]"
        if record.error is None and not (record.output_tokens or (has_text and record.output_tokens is None)):
            record.error = "no token: the stream ended properly, without any content"
        return size

    def _take(self, data: bytes, record: RequestRecord, now_s: float) -> bool:
        event = decode(EVENT, data)
        if event.error is not None:
            record.error = record.error or f"error event: {error_message(data)}"
        if event.usage:
            note_usage(record, event.usage)
        if any(choice.has_content for choice in event.choices):
            record.chunk_s.append(now_s)
        return any(choice.has_text for choice in event.choices)


class LineUser(ModelUser):
    """Reads a stream of JSON lines, as LitServe and `causal_lm` send them."""

    def read(self, response: Any, record: RequestRecord) -> int:
        """Note each line; usage comes with the last one."""
        size = 0
        while line := response.readline(b"\n") or bytes(response.read()):
            record.chunk_s.append(time.monotonic())
            size += len(line)
            part = decode(LINE, line)
            if part.error is not None:
                record.error = record.error or f"error line: {error_message(line)}"
            if part.usage:
                note_usage(record, part.usage)
        if record.error is None and not (size and record.output_tokens != 0):
            record.error = "no token: the answer ended properly, without any content"
        return size


class WholeUser(ModelUser):
    """Reads an answer that comes in one piece."""

    def read(self, response: Any, record: RequestRecord) -> int:
        """Read it all; usage where the answer has one."""
        body = bytes(response.read())
        record.chunk_s.append(time.monotonic())
        if not body:
            record.error = "no content: the answer is empty"
        if b'"usage"' in body and (usage := decode(LINE, body).usage):
            note_usage(record, usage)
        return len(body)


USERS: dict[str, type[ModelUser]] = {"events": CompletionUser, "lines": LineUser, "whole": WholeUser}
"""The user that reads each form of answer."""


class PlannedCalls:
    """A fixed list of calls, given out as they come due until `time_limit_s` after `begin`; keeps the records."""

    def __init__(self, calls: Sequence[Call], time_limit_s: float) -> None:
        self.records: list[RequestRecord] = []
        self._queue = CallQueue(calls)
        self._time_limit_s = time_limit_s
        self._start = Event()
        self._turn = Semaphore()
        self._answer = Event()

    def begin(self, begin_s: float) -> None:
        """Let the users go; `at_s` counts from `begin_s`."""
        self._queue.begin_s = begin_s
        self._start.set()

    def take(self) -> Call | None:
        """The next call, once the load has begun and the call is due."""
        self._start.wait()
        end_s = self._queue.begin_s + self._time_limit_s
        with self._turn:  # one user waits for the next call, the others for their turn
            while self._queue:
                call, now_s = self._queue.head, time.monotonic()
                wait_s = self._queue.due_s(call) - now_s if call else None
                if now_s + max(wait_s or 0.0, 0.0) >= end_s:
                    return None
                if wait_s is not None and wait_s <= 0:
                    return self._queue.pop()
                self._answer.clear()
                self._answer.wait(wait_s)
        return None

    def due_s(self, call: Call) -> float:
        """The time planned, or now."""
        return time.monotonic() if call.at_s is None else self._queue.due_s(call)

    def finish(self, call: Call, record: RequestRecord) -> None:
        """Keep the record, and release the calls that wait for it."""
        self.records.append(record)
        self._queue.answer(call.index, record.end_s)
        self._answer.set()
