"""A chat in the terminal over the OpenAI SDK: one question, or a conversation until the end of input.

Answers are streamed. The conversation is only in memory.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import openai

from clients import rejection, unreachable


@dataclass(frozen=True)
class Options:
    """Options of every request; None is the server's default. `max_tokens` limits the answer, in tokens."""

    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None


def run(url: str, key: str | None, model: str, options: Options, prompt: str | None) -> int:
    """Answer `prompt`, or hold a conversation read from standard input; the exit status is 1 after an error."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0)
    messages: list[dict[str, str]] = []
    if options.system:
        messages.append({"role": "system", "content": options.system})
    try:
        for question in [prompt] if prompt is not None else _questions():
            messages.append({"role": "user", "content": question})
            answer = ""
            for piece in stream(client, model, messages, options):
                print(piece, end="", flush=True)
                answer += piece
            print()
            messages.append({"role": "assistant", "content": answer})
    except openai.APIConnectionError:
        return unreachable.report(url)
    except openai.APIStatusError as problem:
        return rejection.report(problem.status_code, problem.response.text)
    except openai.APIError as problem:  # an error event within the stream
        print(f"\n{problem.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def stream(client: openai.OpenAI, model: str, messages: list[dict[str, str]], options: Options) -> Iterator[str]:
    """The answer's text, piece by piece. Raises openai.APIError."""
    extra: dict[str, Any] = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    parameters = {name: value for name, value in extra.items() if value is not None}
    # The overloads of the SDK take neither plain dicts nor a dict of options.
    chunks = cast(Any, client.chat.completions).create(model=model, messages=messages, stream=True, **parameters)
    for chunk in chunks:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            yield text


def _questions() -> Iterator[str]:
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
