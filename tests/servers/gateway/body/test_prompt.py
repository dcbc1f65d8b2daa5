"""The beginning of a prompt, as its bytes stand in the body."""

import json
from typing import Any

import pytest

from servers.gateway.body.prompt import BEGINNING_BYTES, beginning

MESSAGES = [{"role": "system", "content": 'It says "system": and "messages": ' + "x" * BEGINNING_BYTES}]


@pytest.mark.parametrize(
    ("path", "fields", "start"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}, b' [{"role": "system", "content": "It says'),
        ("/v1/completions", {"prompt": "x" * 2000}, b' "xxx'),
        ("/v1/messages", {"messages": [1], "system": "y" * 2000}, b' "yyy'),
        ("/v1/responses", {"input": "question", "instructions": "z" * 2000}, b' "zzz'),
    ],
)
def test_it_is_the_first_bytes_of_what_the_prompt_begins_with(path: str, fields: dict[str, Any], start: bytes) -> None:
    first, second = (
        beginning(path, json.dumps({"model": "m", "temperature": number, **fields, "user": number}).encode())
        for number in (1, 2)
    )
    assert first is not None
    assert first.startswith(start)
    assert len(first) == BEGINNING_BYTES
    assert first == second, "whatever stands around it"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/tokenize", "/v1/chat/completions"])
def test_a_request_without_a_prompt_has_none(path: str) -> None:
    assert beginning(path, b'{"model": "m", "input": "text"}') is None
