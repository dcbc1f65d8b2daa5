"""The estimate of what a request costs, in tokens."""

import json
from typing import Any

import pytest

from tests.servers.gateway.body.bodies import JSON, LIMITS, read


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"model": "m"}, 1),
        ({"prompt": "x" * 400}, 100),
        ({"prompt": "é" * 400, "max_tokens": 10}, 210),
        ({"prompt": list(range(70)), "max_tokens": 10, "n": 3}, 100),
        ({"prompt": ["x" * 40] * 2, "max_tokens": 10, "n": 3}, 20 + 60),
        ({"messages": [{"role": "user", "content": "x" * 396}], "max_completion_tokens": 50, "max_tokens": 9}, 150),
        ({"max_completion_tokens": 1, "max_tokens": 100}, 101),
        ({"messages": [[{"role": "user", "content": "x" * 36}]] * 3, "max_tokens": 10}, 30 + 30),
        ({"input": "x" * 40, "max_output_tokens": 5}, 15),
        ({"messages": [{"content": [{"image_url": {"url": "data:" + "x" * 999}}, {"text": "x" * 40}]}]}, 10),
        ({"prompt": "x", "max_tokens": "many", "n": None}, 1),
    ],
)
def test_tokens_are_estimated_from_the_prompts_and_what_may_be_generated(fields: dict[str, Any], tokens: int) -> None:
    assert read(json.dumps(fields).encode(), JSON, LIMITS).tokens == tokens
