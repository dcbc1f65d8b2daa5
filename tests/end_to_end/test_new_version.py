"""The demo's embedding model and its language model get new versions while users go on asking both."""

import contextlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import Platform, litport
from tests.services.polling import wait_until

EMBED, CHAT = "all-minilm-l6-v2", "smollm2-135m-instruct"
PAUSE_S = 0.4  # without pauses, users leave a starting vLLM no processor
QUESTION = {"role": "user", "content": "What is the capital of France?"}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    EMBED: ("/v1/embeddings", {"model": EMBED, "input": "a cat"}),
    CHAT: ("/v1/chat/completions", {"model": CHAT, "messages": [QUESTION], "max_tokens": 8, "temperature": 0}),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "change", "options"),
    [(EMBED, "max_batch_size=8", ("--compare", "4")), (CHAT, "args.max-num-seqs=64", ())],
    ids=["embedding", "language model"],
)
def test_real_models_are_swapped_and_rolled_back_under_users_without_a_failed_request(
    platform: Platform, model: str, change: str, options: tuple[str, ...]
) -> None:
    port = ("--port", platform.url.rpartition(":")[2])
    with users(platform, model) as connections:
        swap = litport("swap", model, "--set", change, *options, *port, timeout_s=600)
        assert swap.returncode == 0, swap.stderr
        wait_until(lambda: all(answers[-1][0] == "v2" for answers in connections))
        assert litport("rollback", model, *port).returncode == 0
        wait_until(lambda: all(answers[-1][0] == "v1" for answers in connections))
    for answers in connections:
        versions = [version for version, _ in answers]
        assert [version for version, _ in itertools.groupby(versions)] == ["v1", "v2", "v1"]
        assert len({answer for _, answer in answers}) == 1, "the same weights, the same answer"


@contextlib.contextmanager
def users(platform: Platform, model: str, count: int = 2) -> Iterator[list[list[tuple[str, str]]]]:
    """Users who each ask on one connection until the block ends: the version and the answer of each request."""
    connections: list[list[tuple[str, str]]] = [[] for _ in range(count)]
    ended = threading.Event()
    path, body = REQUESTS[model]

    def keep_asking(answers: list[tuple[str, str]]) -> None:
        with httpx.Client(base_url=platform.url, timeout=60) as client:
            while not ended.wait(PAUSE_S):
                answer = client.post(path, json=body)
                assert answer.status_code == 200, answer.text
                answers.append((answer.headers["x-litport-version"], _content(answer.json())))

    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(keep_asking, answers) for answers in connections]
        wait_until(lambda: all(connections))
        try:
            yield connections
        finally:
            ended.set()
            for future in futures:
                future.result()


def _content(document: Any) -> str:
    if "choices" in document:
        return str(document["choices"][0]["message"]["content"])
    return str([round(value, 3) for value in document["data"][0]["embedding"]])
