"""Workloads: the requests of every rung, made from a seed or read from a file.

An item is a request before it has a form: token ids, messages, a picture. Rungs without a server take items as they
are; `benchmarks.load.request` puts them into the form that a server takes. Nothing is tokenised here: the length of a
prompt is that of the ids drawn, and the server says how many tokens the text of a file has.
"""

import io
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from configs.bench import LENGTH, Workload
from configs.errors import UserError

# Ids below are often special tokens; the most ids that a vocabulary of some size has.
_TOKEN_IDS = range(1000, 20_000)
_PICTURE_PX = (320, 240)
_VOCABULARY = ("river", "stone", "light", "garden", "winter", "paper", "music", "bridge", "window", "morning", "silver")


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
        case "texts":
            items = _texts(workload, draw)
        case "images":
            items = _pictures(workload, draw)
        case "example":
            items = (Item(index, body=example) for index in itertools.count())
        case _:
            items = _tokens(workload, draw)
    return list(itertools.islice(items, count))


def with_length(item: Item, length: int) -> Item:
    """The item with an answer of so many tokens, greedy, past the end of text; its body says so, where it has one."""
    if item.body is None:
        return msgspec.structs.replace(item, output_tokens=length)
    limits = {"max_tokens": length, "ignore_eos": True, "temperature": 0}
    body = {name: value for name, value in item.body.items() if name != "max_completion_tokens"}
    return msgspec.structs.replace(item, output_tokens=length, body={**body, **limits})


def expected_hit_rate(workload: Workload, items: Sequence[Item]) -> float | None:
    """The share of prompt tokens that the prefix cache should answer; None where that depends on the moment."""
    if workload.kind in (None, "tokens"):
        return 0.0
    if workload.kind == "shared-prefix":
        sizes = [len(item.token_ids[0]) for item in items if item.token_ids]
        repeated = max(len(items) - workload.prefixes, 0)
        return repeated * workload.prefix_tokens / sum(sizes) if sizes else None
    return None


def _tokens(workload: Workload, draw: random.Random) -> Iterator[Item]:
    for index in itertools.count():
        texts = [_ids(draw, _length(workload.input_tokens, draw)) for _ in range(workload.inputs_per_request)]
        yield Item(index, token_ids=texts, output_tokens=_length(workload.output_tokens, draw))


def _with_prefixes(workload: Workload, draw: random.Random) -> Iterator[Item]:
    prefixes = [_ids(draw, workload.prefix_tokens) for _ in range(workload.prefixes)]
    for index in itertools.count():
        suffix = _ids(draw, _length(workload.input_tokens, draw))
        yield Item(
            index,
            token_ids=[prefixes[index % len(prefixes)] + suffix],
            output_tokens=_length(workload.output_tokens, draw),
        )


def _chats(workload: Workload, draw: random.Random) -> Iterator[Item]:
    # The assistant's earlier turns are drawn, too: so every rung reads the same history.
    numbers = itertools.count()
    for session in itertools.count():
        messages: list[dict[str, Any]] = []
        before: int | None = None
        for _ in range(workload.turns):
            question = " ".join(draw.choices(_VOCABULARY, k=_length(workload.input_tokens, draw)))
            messages = [*messages, {"role": "user", "content": question}]
            index, length = next(numbers), _length(workload.output_tokens, draw)
            yield Item(index, messages=messages, output_tokens=length, after=before, session=session)
            messages = [*messages, {"role": "assistant", "content": " ".join(draw.choices(_VOCABULARY, k=length))}]
            before = index


def _texts(workload: Workload, draw: random.Random) -> Iterator[Item]:
    # For a server whose tokenizer is not known. A word is about a token.
    for index in itertools.count():
        lengths = [_length(workload.input_tokens, draw) for _ in range(workload.inputs_per_request)]
        yield Item(index, body={"input": [" ".join(draw.choices(_VOCABULARY, k=length)) for length in lengths]})


def _from_file(workload: Workload, draw: random.Random) -> Iterator[Item]:
    if workload.path is None:
        raise UserError("bench.workload.path: expected a JSONL file for kind file, got none")
    items = [item for document in _documents(workload.path) if (item := _item_of(document))]
    if not items:
        raise UserError(f"bench.workload.path: no request of ShareGPT's or OpenAI's batch form in {workload.path}")
    for index, item in enumerate(itertools.cycle(items)):
        length = item.output_tokens or _length(workload.output_tokens, draw)
        yield msgspec.structs.replace(with_length(item, length), index=index)


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
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        return Item(0, body=body, output_tokens=limit) if "messages" in body else None
    turns = document.get("conversations")  # ShareGPT's: the first question
    if isinstance(turns, list) and turns and isinstance(turns[0], dict) and isinstance(turns[0].get("value"), str):
        return Item(0, messages=[{"role": "user", "content": turns[0]["value"]}])
    return None


def _pictures(workload: Workload, draw: random.Random) -> Iterator[Item]:
    if workload.path is None:
        pictures = [_draw_picture(draw) for _ in range(16)]
    else:
        files = sorted(file for file in workload.path.glob("*") if file.suffix.lower() in _PICTURE_SUFFIXES)
        if not files:
            raise UserError(f"bench.workload.path: expected a folder with pictures, found none in {workload.path}")
        pictures = [file.read_bytes() for file in files]
    for index in itertools.count():
        yield Item(index, picture=pictures[index % len(pictures)])


_PICTURE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"}


def _draw_picture(draw: random.Random) -> bytes:
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
