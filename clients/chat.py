"""A chat in the terminal over the OpenAI SDK: one question, or a conversation until `/bye` or the end of input.

Answers are streamed. The conversation, and the lines that the arrow keys bring back, are only in memory.
"""

import contextlib
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, cast

import openai

from clients import rejection, unreachable

_HELP = """/bye    end the conversation (or Ctrl-D)
/clear  begin a new one
Ctrl-C  end an answer; what came of it stays in the conversation
The arrow keys bring back and edit earlier lines."""


@dataclass(frozen=True)
class Options:
    """Options of every request; None is the server's default. `max_tokens` limits the answer, in tokens."""

    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None


def run(url: str, key: str | None, model: str, options: Options, prompt: str | None) -> int:
    """Answer `prompt`, or hold a conversation read from standard input; the exit status is 1 after an error.

    On a terminal an error ends a conversation only when it has no answer yet, and Ctrl-C ends an answer.
    """
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0)
    talk = _Talk(client, url, model, options)
    if prompt is not None:
        with contextlib.suppress(KeyboardInterrupt):
            return talk.ask(prompt)
        return _interrupted()
    interactive = sys.stdin.isatty()
    for line in _typed_lines() if interactive else _piped_lines():
        if line == "/bye":
            break
        if line == "/clear":
            talk.clear()
        elif line in ("/help", "/?"):
            print(_HELP)
        else:
            try:
                status = talk.ask(line)
            except KeyboardInterrupt:
                if not interactive:
                    return _interrupted()
                print()
                continue
            if status and not (interactive and talk.has_answers):
                return status
    return 0


class _Talk:
    """A conversation with a model. What was asked without an answer is taken out of it again."""

    def __init__(self, client: openai.OpenAI, url: str, model: str, options: Options) -> None:
        self._client, self._url, self._model, self._options = client, url, model, options
        self._messages: list[dict[str, str]] = []
        self.has_answers = False
        self.clear()

    def clear(self) -> None:
        """Begin anew, with the system message."""
        system = self._options.system
        self._messages = [{"role": "system", "content": system}] if system else []

    def ask(self, question: str) -> int:
        """Print the answer as it comes, or what went wrong; the exit status."""
        self._messages.append({"role": "user", "content": question})
        answer = ""
        try:
            with contextlib.closing(stream(self._client, self._model, self._messages, self._options)) as pieces:
                for piece in pieces:
                    print(piece, end="", flush=True)
                    answer += piece
            print()
        except openai.APIConnectionError:
            return unreachable.report(self._url)
        except openai.APIStatusError as problem:
            return rejection.report(problem.status_code, problem.response.text)
        except openai.APIError as problem:  # an error event within the stream
            print(f"\n{problem.message}", file=sys.stderr)
            return 1
        finally:
            if answer:
                self._messages.append({"role": "assistant", "content": answer})
                self.has_answers = True
            else:
                self._messages.pop()
        return 0


def stream(client: openai.OpenAI, model: str, messages: list[dict[str, str]], options: Options) -> Generator[str]:
    """The answer's text, piece by piece; closed early, it ends the request. Raises openai.APIError."""
    extra: dict[str, Any] = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    parameters = {name: value for name, value in extra.items() if value is not None}
    # The overloads of the SDK take neither plain dicts nor a dict of options.
    create = cast(Any, client.chat.completions).create
    with create(model=model, messages=messages, stream=True, **parameters) as chunks:
        for chunk in chunks:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text


def _typed_lines() -> Iterator[str]:
    with contextlib.suppress(ImportError):  # a Python without it reads lines all the same, without their editing
        import readline  # noqa: F401 # input() edits lines with it, and keeps them for the arrow keys
    print("/bye ends the conversation, /help tells more", file=sys.stderr)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n/bye or Ctrl-D ends the conversation", file=sys.stderr)
            continue
        if line:
            yield line


def _piped_lines() -> Iterator[str]:
    yield from filter(None, map(str.strip, sys.stdin))


def _interrupted() -> int:
    print()
    return 128 + signal.SIGINT
