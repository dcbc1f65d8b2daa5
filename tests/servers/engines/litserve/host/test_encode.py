"""Values of answers, whole and in streams, are what they hold, or an error that names their place."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from servers.apis.echo import EchoAPI
from servers.engines.litserve.host.encode import EncodeError, part_formatter, to_json


class Colour(Enum):
    RED = "red"


@dataclass
class Box:
    """Numbers of numpy, one within the other."""

    label: str
    scores: Any


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: zip("ab", [1, 2], strict=True), '[["a",1],["b",2]]'),  # jsonable_encoder: {"a":1,"b":2}
        (lambda: map(np.float32, [0.5, 1]), "[0.5,1.0]"),
        (lambda: (np.int64(number) for number in range(2)), "[0,1]"),
        (lambda: {np.int64(1)}, "[1]"),
        (lambda: deque([np.int64(1)]), "[1]"),
        (lambda: range(3), "[0,1,2]"),
        (lambda: {"a": np.int64(1)}.values(), "[1]"),
        (lambda: MappingProxyType({"a": np.int64(1)}), '{"a":1}'),
        (lambda: Box("a", np.arange(2)), '{"label":"a","scores":[0,1]}'),
        (lambda: [Box("a", Box("b", np.float32(0.5)))], '[{"label":"a","scores":{"label":"b","scores":0.5}}]'),
        (lambda: {date(2026, 1, 1): 1}, '{"2026-01-01":1}'),
        (lambda: {Colour.RED: np.float32(0.5), UUID(int=1): [np.int64(1)]}, f'{{"red":0.5,"{UUID(int=1)}":[1]}}'),
    ],
)
def test_a_value_is_what_it_holds(make: Callable[[], Any], text: str) -> None:
    assert to_json(make()).decode() == text
    part = part_formatter(EchoAPI())({"value": make()})
    assert part.replace(", ", ",").replace(": ", ":") == f'{{"value":{text}}}\n'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [len]}, "a[0]: builtin_function_or_method cannot be encoded as JSON"),  # jsonable_encoder: {}
        ({"a": ValueError("x")}, "a: ValueError cannot be encoded as JSON"),
        ({"a": map(int, "1"), date(2026, 1, 1): 1}, "a: expected a list, got a map (keys must be"),
    ],
)
def test_what_has_no_value_is_named(value: Any, message: str) -> None:
    with pytest.raises(EncodeError) as raised:
        to_json(value)
    assert str(raised.value).startswith(f"encode_response: {message}")
