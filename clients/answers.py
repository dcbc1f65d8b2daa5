"""The parts of answers that the load generator reads: usage, content and errors, and nothing else of them."""

from typing import Any, TypeVar

import msgspec

from clients.record import RequestRecord

_QUOTED_BYTES = 300


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as the server counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None

    @property
    def has_text(self) -> bool:
        # Whether there is any; an empty one may be a part of a character, or nothing at all.
        return bool(self.text) if self.text is not None else self.has_content

    @property
    def has_content(self) -> bool:
        # A completion's event has a token even where it is no whole character yet; a chat's first has none.
        if self.text is not None:
            return True
        delta = self.delta
        return bool(delta and (delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls))


class Event(msgspec.Struct):
    """An event of a completion or a chat completion."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None


class Line(msgspec.Struct):
    """A line of a stream of JSON lines, or a whole answer."""

    usage: Usage | None = None
    error: Any = None


class _Message(msgspec.Struct):
    message: str | None = None


class _Problem(msgspec.Struct):
    error: _Message | str | None = None
    message: str | None = None
    detail: str | None = None


EVENT = msgspec.json.Decoder(Event)
LINE = msgspec.json.Decoder(Line)
_PROBLEM = msgspec.json.Decoder(_Problem)

_Part = TypeVar("_Part")


def decode(decoder: "msgspec.json.Decoder[_Part]", data: bytes) -> _Part:
    """The document. Raises msgspec.DecodeError, which quotes what came."""
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as problem:
        raise msgspec.DecodeError(f"{problem}, got {bytes(data[:100]).decode(errors='replace')!r}") from None


def error_message(body: bytes) -> str:
    """What an error says, in OpenAI's, FastAPI's or any other form, in one line."""
    text = bytes(body[:_QUOTED_BYTES]).decode(errors="replace")
    try:
        problem = _PROBLEM.decode(body)
        error = problem.error.message if isinstance(problem.error, _Message) else problem.error
        text = error or problem.message or problem.detail or text
    except msgspec.DecodeError:
        pass
    return " ".join(text.split())[:_QUOTED_BYTES]


def note_usage(record: RequestRecord, usage: Usage) -> None:
    """Copy the counts into the record."""
    record.prompt_tokens = usage.prompt_tokens
    record.output_tokens = usage.completion_tokens
    record.cached_tokens = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
