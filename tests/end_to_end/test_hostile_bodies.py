"""Bodies that hypothesis makes, most of them wrong in a way that somebody's program could be: none is answered 5xx.

There are 60 of them, and HOSTILE_BODIES (400) in the long form. They are made first and sent by several clients at a
time, each with five seconds to be answered, so that one that is right and long costs no more than that.
"""

import concurrent.futures
import contextlib
import json
import os
import threading
import time
from collections import Counter
from typing import Any

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from tests.conftest import Platform
from tests.end_to_end.test_schema_cases import shape_problem

COUNT = 60
LONG_COUNT = int(os.environ.get("HOSTILE_BODIES", "400"))
_CLIENTS = 8
_LIMIT_S = 5
_EXPLAINED = {503, 504}

_CHAT = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": {"model": "smollm2-135m-instruct", "prompt": "Once", "max_tokens": 2},
    "/v1/responses": {"model": "smollm2-135m-instruct", "input": "Hello", "max_output_tokens": 2},
    "/v1/messages": _CHAT,
    "/tokenize": {"model": "smollm2-135m-instruct", "prompt": "Once"},
    "/detokenize": {"model": "smollm2-135m-instruct", "tokens": [1, 2]},
    "/v1/embeddings": {"model": "all-minilm-l6-v2", "input": ["a cat", "a kitten"]},
    "/predict/efficientnet-lite0": {"image": "data:image/png;base64,AAAA"},
}

_EXTREMES: list[Any] = [None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e-300, 1e308, 2**31, 2**63, -(2**64), 10**40]
_EXTREMES += [
    "",
    " ",
    "x" * 5000,
    "\x00",
    "🎉" * 50,
    "\ufeff",
    [],
    {},
    [[]],
    [None],
    [-1],
    [2**31],
    [""],
    [{}],
    {"": None},
]
_EXTREMES += [{"type": "json_object"}, {"type": "json_schema"}, {"regex": "("}, {"grammar": "root ::="}, {"choice": []}]
_EXTREMES += [[{"role": "user"}], [{"role": "💥", "content": None}], [{"role": "tool", "content": []}], {"50256": 101}]
_EXTREMES += [[{"type": "function", "function": {}}], [{"type": "image_url", "image_url": {"url": "http://x"}}]]

# Numbers in between would be right, and make an answer of minutes.
_VALUES = st.one_of(
    st.sampled_from(_EXTREMES),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-5, 5)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
)


@st.composite
def _requests(draw: st.DrawFn, names: list[str]) -> tuple[str, bytes]:
    """A path and a body: a right one with a few fields replaced or left out, sometimes broken as text."""
    path = draw(st.sampled_from(sorted(_BODIES)))
    body = dict(_BODIES[path])
    for _ in range(draw(st.integers(0, 3))):
        field = draw(st.sampled_from([*body, *names]))
        if draw(st.integers(0, 5)) == 0:
            body.pop(field, None)
        else:
            body[field] = draw(_VALUES)
    text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 4)) :]
    return path, text


@pytest.mark.parametrize("count", [COUNT, pytest.param(LONG_COUNT, marks=pytest.mark.long)])
def test_the_demo_answers_whatever_it_is_sent(platform: Platform, count: int) -> None:
    schemas = platform.http.get("/openapi.json", timeout=20).json()["components"]["schemas"].values()
    names = sorted({name for schema in schemas for name in schema.get("properties", {})})
    made: list[tuple[str, bytes]] = []

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(_requests(names))
    def make(request: tuple[str, bytes]) -> None:
        made.append(request)

    make()
    restarts = {name: model["restarts"] for name, model in platform.status().items()}
    statuses: Counter[int] = Counter()
    problems: list[str] = []
    quick_s: list[float] = []
    local = threading.local()

    def send(request: tuple[str, bytes]) -> None:
        path, body = request
        if not hasattr(local, "client"):
            local.client = opened.enter_context(httpx.Client(base_url=platform.url, timeout=60))
        headers = {"content-type": "application/json", "x-request-timeout": str(_LIMIT_S)}
        begin_s = time.monotonic()
        answer = local.client.post(path, content=body, headers=headers)
        spent_s = time.monotonic() - begin_s
        statuses[answer.status_code] += 1
        if 400 <= answer.status_code < 500:
            quick_s.append(spent_s)
        if answer.status_code >= 500 and answer.status_code not in _EXPLAINED:
            problems.append(f"{answer.status_code} {path} {body[:300]!r}: {answer.text[:200]}")
        elif answer.status_code >= 400 and (problem := shape_problem(answer.status_code, answer.content)):
            problems.append(f"{path} {body[:300]!r}: {problem}")
        if spent_s > _LIMIT_S + 5:
            problems.append(f"answered after {spent_s:.1f} s: {path} {body[:300]!r}")

    with contextlib.ExitStack() as opened, concurrent.futures.ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(send, made))
    quick_s.sort()
    p50_s, p99_s = (quick_s[int(share * len(quick_s))] for share in (0.5, 0.99))
    print(f"{len(made)} bodies, {dict(statuses)}; a 4xx took {p50_s * 1000:.0f} ms (p50), {p99_s * 1000:.0f} ms (p99)")
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(sorted(problems, key=len)[:20])
    assert statuses[200] > 0
    assert {name: model["restarts"] for name, model in platform.status().items()} == restarts
