from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.apis.text_stream import TextStream

TEXT = "grün, 日本 and 👩‍🚀 <end"  # characters of one to four bytes, and one of several characters


@pytest.fixture(scope="module")
def tokenizer(tiny_lm: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_lm)


def _pieces(tokenizer: Any, text: str, *stop: str) -> Iterator[str]:
    stream = TextStream(tokenizer, stop)
    for token_id in tokenizer(text)["input_ids"]:
        yield stream.push(token_id)
        if stream.stopped:
            return
    yield stream.finish()


def test_pieces_add_up_to_the_text_and_hold_whole_characters(tokenizer: Any) -> None:
    pieces = list(_pieces(tokenizer, TEXT))
    assert len(pieces) > len(TEXT)  # a token is a byte here
    assert "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_text_come_at_the_end_as_the_decoder_writes_them(tokenizer: Any) -> None:
    half = tokenizer("ü")["input_ids"][:1]
    stream = TextStream(tokenizer)
    assert stream.push(half[0]) == ""
    assert stream.finish() == "\ufffd"


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (("日本",), "grün, "),
        (("n, 日",), "grü"),
        (("and", "日"), "grün, "),
        (("本 x", "<end>"), TEXT),  # begun twice, never finished
        (("grün",), ""),
    ],
)
def test_text_ends_before_a_stop_string_and_no_part_of_one_is_given_out(
    tokenizer: Any, stop: tuple[str, ...], left: str
) -> None:
    assert "".join(_pieces(tokenizer, TEXT, *stop)) == left


def test_special_tokens_are_no_text(tokenizer: Any) -> None:
    stream = TextStream(tokenizer)
    assert stream.push(tokenizer.eos_token_id) + stream.finish() == ""
