"""Locust users that ask models, and note when each part of an answer comes.

The same classes make the load of `litport bench` and of `locust -f clients/locustfile.py`. Their calls come from
`environment.calls`. Latency counts from the time a call was due, so a late user cannot hide a slow server. A failed
request is a record like any other.
"""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import gevent
import msgspec
from gevent.event import Event
from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust import User, constant, task
from locust.exception import StopUser

from clients.record import Call, RequestRecord

_CONNECT_TIMEOUT_S = 10
_BLOCK_BYTES = 64 * 1024


class Calls(Protocol):
    """Gives users their calls, and takes their records."""

    def take(self) -> Call | None:
        """The next call, or None when there is no more."""
        ...

    def due_s(self, call: Call) -> float:
        """When the call is due; returns once everything it waits for has happened, but perhaps before that time."""
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
        self._client = HTTPClient.from_url(
            self.host or environment.host,
            connection_timeout=_CONNECT_TIMEOUT_S,
            network_timeout=self.answer_timeout_s,
            block_size=_BLOCK_BYTES,
        )

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
        while (wait_s := due_s - time.monotonic()) > 0:
            gevent.sleep(wait_s)
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
                record.error = f"status {record.status}: {body[:300].decode(errors='replace')}"
                return len(body)
            size = self.read(response, record)
            record.end_s = time.monotonic()
            return size
        finally:
            response.release()


class CompletionUser(ModelUser):
    """Reads a stream of server-sent events as OpenAI's completions and chat completions send them."""

    def read(self, response: Any, record: RequestRecord) -> int:
        """Note each event that has content; usage comes with the last one (`stream_options.include_usage`)."""
        size = 0
        finished = False
        # The first line tells how lines end; from then on a whole event is read at once.
        first = response.readline(b"\n")
        end = b"\r\n\r\n" if first.endswith(b"\r\n") else b"\n\n"
        event = first + response.readline(end[len(end) // 2 :])
        while event:
            now_s = time.monotonic()
            size += len(event)
            data = event.partition(b":")[2].strip()
            if data == b"[DONE]":
                finished = True
            elif data:
                self._take(_EVENT.decode(data), record, now_s)
            event = response.readline(end)
        if not finished and record.error is None:
            record.error = "the stream ended without [DONE]"
        return size

    def _take(self, event: "_Event", record: RequestRecord, now_s: float) -> None:
        if event.error is not None:
            record.error = f"error event: {msgspec.json.encode(event.error)[:300].decode()}"
        if event.usage:
            _note_usage(record, event.usage)
        if any(choice.has_content for choice in event.choices):
            record.chunk_s.append(now_s)


class LineUser(ModelUser):
    """Reads a stream of JSON lines, as LitServe and `causal_lm` send them."""

    def read(self, response: Any, record: RequestRecord) -> int:
        """Note each line; usage comes with the last one."""
        size = 0
        while line := response.readline(b"\n"):
            record.chunk_s.append(time.monotonic())
            size += len(line)
            part = _LINE.decode(line)
            if part.error is not None:
                record.error = f"error line: {msgspec.json.encode(part.error)[:300].decode()}"
            if part.usage:
                _note_usage(record, part.usage)
        return size


class WholeUser(ModelUser):
    """Reads an answer that comes in one piece."""

    def read(self, response: Any, record: RequestRecord) -> int:
        """Read it all; usage where the answer has one."""
        body = bytes(response.read())
        record.chunk_s.append(time.monotonic())
        if b'"usage"' in body and (usage := _LINE.decode(body).usage):
            _note_usage(record, usage)
        return len(body)


USERS: dict[str, type[ModelUser]] = {"events": CompletionUser, "lines": LineUser, "whole": WholeUser}
"""The user that reads each form of answer."""


class PlannedCalls:
    """A fixed list of calls, given out in their order until `time_limit_s` after `begin`; keeps the records."""

    def __init__(self, calls: Sequence[Call], time_limit_s: float) -> None:
        self.records: list[RequestRecord] = []
        self._calls = iter(calls)
        self._time_limit_s = time_limit_s
        self._start = Event()
        self._begin_s = 0.0
        self._answers: dict[int, Event] = {call.after: Event() for call in calls if call.after is not None}

    def begin(self, begin_s: float) -> None:
        """Let the users go; `at_s` counts from `begin_s`."""
        self._begin_s = begin_s
        self._start.set()

    def take(self) -> Call | None:
        """The next call, once the load has begun."""
        self._start.wait()
        call = next(self._calls, None)
        if call is None:
            return None
        spent_s = time.monotonic() - self._begin_s
        return call if max(spent_s, call.at_s or 0.0) < self._time_limit_s else None

    def due_s(self, call: Call) -> float:
        """The time planned, or now; a call that follows another is due when that is answered, not before."""
        if call.after is not None:
            self._answers[call.after].wait()
        now_s = time.monotonic()
        if call.at_s is None:
            return now_s
        due_s = self._begin_s + call.at_s
        return due_s if call.after is None else max(due_s, now_s)

    def finish(self, call: Call, record: RequestRecord) -> None:
        """Keep the record, and release the call that waits for it."""
        self.records.append(record)
        if waiting := self._answers.get(call.index):
            waiting.set()


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None

    @property
    def has_content(self) -> bool:
        # A completion's event has a token even where it is no whole character yet; a chat's first has none.
        if self.text is not None:
            return True
        delta = self.delta
        return bool(delta and (delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls))


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


class _Line(msgspec.Struct):
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_EVENT = msgspec.json.Decoder(_Event)
_LINE = msgspec.json.Decoder(_Line)


def _note_usage(record: RequestRecord, usage: _Usage) -> None:
    record.prompt_tokens = usage.prompt_tokens
    record.output_tokens = usage.completion_tokens
    record.cached_tokens = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
