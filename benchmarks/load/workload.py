"""Workloads: what is asked of every rung, made from a seed or read from a file.

An item is a request before it has a form: token ids, messages, a picture. Rungs without a server take items as they
are; `calls` puts them into the form that a server takes. It never tokenises: lengths of prompts are those of the ids it
draws, and what a file's text comes to in tokens is for the server to say.
"""

import io
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clients.record import Call
from configs.bench import LENGTH, Workload
from configs.errors import UserError

# Ids below are often special tokens; the most ids that a vocabulary of some size has.
_TOKEN_IDS = range(1000, 20_000)
_PICTURE_PX = (320, 240)
_WORDS = ("river", "stone", "light", "garden", "winter", "paper", "music", "bridge", "window", "morning", "silver")


class Item(msgspec.Struct, frozen=True):
    """One request of a workload. Exactly one of `token_ids` (one list a text), `messages`, `picture` (an encoded
    image) and `body` (a whole JSON request) is set; `output_tokens` is None where there is nothing to generate.
    """

    index: int
    token_ids: list[list[int]] | None = None
    messages: list[dict[str, Any]] | None = None
    picture: bytes | None = None
    body: dict[str, Any] | None = None
    output_tokens: int | None = None
    at_s: float | None = None
    after: int | None = None
    session: int = 0


def make(workload: Workload, count: int, seed: int, *, example: Any = None) -> list[Item]:
    """`count` items of the workload; the same seed gives the same items. Raises UserError where a file has none."""
    draw = random.Random(seed)  # noqa: S311 # a workload must be repeatable
    match workload.kind:
        case "shared-prefix":
            items = _with_prefixes(workload, draw)
        case "chat":
            items = _chats(workload, draw)
        case "file":
            items = _from_file(workload, draw)
        case "images":
            items = _pictures(workload, draw)
        case "example":
            items = (Item(index, body=example) for index in itertools.count())
        case _:
            items = _tokens(workload, draw)
    return list(itertools.islice(items, count))


def expected_hit_rate(workload: Workload, items: Sequence[Item]) -> float | None:
    """The share of prompt tokens that the prefix cache should answer; None where that depends on the moment."""
    if workload.kind in (None, "tokens"):
        return 0.0
    if workload.kind == "shared-prefix":
        sizes = [len(item.token_ids[0]) for item in items if item.token_ids]
        met = max(len(items) - workload.prefixes, 0)
        return met * workload.prefix_tokens / sum(sizes) if sizes else None
    return None


def calls(items: Sequence[Item], form: str, model: str, path: str) -> list[Call]:
    """The items as requests in a server's form: `completions`, `embeddings`, `causal_lm`, `image` or `json`."""
    return [_call(item, form, model, path) for item in items]


def _call(item: Item, form: str, model: str, path: str) -> Call:
    content_type = "application/json"
    if form == "image":
        assert item.picture is not None
        body, content_type = _form_of(item.picture)
    else:
        body = json.dumps(_body(item, form, model)).encode()
        if form == "completions" and item.token_ids is None:
            path = path.replace("/completions", "/chat/completions")
    # Somebody's own request may end before its limit.
    asked = item.output_tokens if item.body is None else None
    return Call(item.index, path, body, content_type, item.at_s, item.after, item.session, asked)


def _body(item: Item, form: str, model: str) -> dict[str, Any]:
    if form == "embeddings":
        assert item.token_ids is not None
        return {"model": model, "input": item.token_ids}
    if form == "json" or (item.body is not None and form == "causal_lm"):
        assert item.body is not None
        return item.body
    limits: dict[str, Any] = {"max_tokens": item.output_tokens, "ignore_eos": True, "temperature": 0}
    if form == "causal_lm":
        prompt = {"messages": item.messages} if item.token_ids is None else {"prompt_token_ids": item.token_ids[0]}
        return {**prompt, **limits}
    streamed = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if item.body is not None:
        return {**item.body, **streamed}
    prompt = {"messages": item.messages} if item.token_ids is None else {"prompt": item.token_ids[0]}
    return {**prompt, **limits, **streamed}


def _form_of(picture: bytes) -> tuple[bytes, str]:
    boundary = "litport-bench-7b0c2f"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n'
    part = f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()
    return part + picture + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _tokens(workload: Workload, draw: random.Random) -> Iterator[Item]:
    for index in itertools.count():
        texts = [_ids(draw, _length(workload.input_tokens, draw)) for _ in range(workload.inputs_per_request)]
        yield Item(index, token_ids=texts, output_tokens=_length(workload.output_tokens, draw))


def _with_prefixes(workload: Workload, draw: random.Random) -> Iterator[Item]:
    prefixes = [_ids(draw, workload.prefix_tokens) for _ in range(workload.prefixes)]
    for index in itertools.count():
        own = _ids(draw, _length(workload.input_tokens, draw))
        ids = prefixes[index % len(prefixes)] + own
        yield Item(index, token_ids=[ids], output_tokens=_length(workload.output_tokens, draw))


def _chats(workload: Workload, draw: random.Random) -> Iterator[Item]:
    # What the assistant said in earlier turns is drawn, too: then every rung reads the same history.
    numbers = itertools.count()
    for session in itertools.count():
        messages: list[dict[str, Any]] = []
        before: int | None = None
        for _ in range(workload.turns):
            question = " ".join(draw.choices(_WORDS, k=_length(workload.input_tokens, draw)))
            messages = [*messages, {"role": "user", "content": question}]
            index, length = next(numbers), _length(workload.output_tokens, draw)
            yield Item(index, messages=messages, output_tokens=length, after=before, session=session)
            messages = [*messages, {"role": "assistant", "content": " ".join(draw.choices(_WORDS, k=length))}]
            before = index


def _from_file(workload: Workload, draw: random.Random) -> Iterator[Item]:
    if workload.path is None:
        raise UserError("bench.workload.path: expected a JSONL file for kind file, got none")
    found = [item for document in _documents(workload.path) if (item := _item_of(document))]
    if not found:
        raise UserError(f"bench.workload.path: no request of ShareGPT's or OpenAI's batch form in {workload.path}")
    for index, item in enumerate(itertools.cycle(found)):
        length = item.output_tokens if item.messages is None else _length(workload.output_tokens, draw)
        yield msgspec.structs.replace(item, index=index, output_tokens=length)


def _documents(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.split("\n") if line.strip()]  # a string may hold Unicode's other ends of lines
        parsed = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise UserError(f"bench.workload.path: expected JSON lines or a JSON list in {path}: {problem}") from None
    return [document for document in parsed if isinstance(document, dict)]


def _item_of(document: Mapping[str, Any]) -> Item | None:
    if isinstance(body := document.get("body"), dict):  # OpenAI's batch form
        asked = body.get("max_completion_tokens", body.get("max_tokens"))
        return Item(0, body=body, output_tokens=asked) if "messages" in body else None
    said = document.get("conversations")  # ShareGPT's: the first question
    if isinstance(said, list) and said and isinstance(said[0], dict) and isinstance(said[0].get("value"), str):
        return Item(0, messages=[{"role": "user", "content": said[0]["value"]}])
    return None


def _pictures(workload: Workload, draw: random.Random) -> Iterator[Item]:
    if workload.path is None:
        drawn = [_drawn_picture(draw) for _ in range(16)]
    else:
        files = sorted(file for file in workload.path.glob("*") if file.suffix.lower() in _PICTURE_SUFFIXES)
        if not files:
            raise UserError(f"bench.workload.path: expected a folder with pictures, found none in {workload.path}")
        drawn = [file.read_bytes() for file in files]
    for index in itertools.count():
        yield Item(index, picture=drawn[index % len(drawn)])


_PICTURE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}


def _drawn_picture(draw: random.Random) -> bytes:
    """A JPEG of soft coloured clouds: it takes a decoder what a photograph of its size takes."""
    from PIL import Image

    small = Image.frombytes("RGB", (20, 15), draw.randbytes(20 * 15 * 3))
    file = io.BytesIO()
    small.resize(_PICTURE_PX, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _ids(draw: random.Random, count: int) -> list[int]:
    return draw.choices(_TOKEN_IDS, k=count)


def _length(text: str, draw: random.Random) -> int:
    match = LENGTH.fullmatch(text)
    assert match is not None, "the settings have checked it"
    fixed, least, most, median, sigma = match.groups()
    if fixed:
        return int(fixed)
    if least:
        return draw.randint(int(least), int(most))
    return max(1, round(float(median) * draw.lognormvariate(0, float(sigma))))
