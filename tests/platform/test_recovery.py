"""A worker that is killed: the model comes back by itself, and the others do not notice."""

import os
import signal
import time

import httpx
import pytest

from servers import process_group
from tests.conftest import Platform

CHAT = "smollm2-135m-instruct"
EMBED = "all-minilm-l6-v2"
_BACK_S = 180


@pytest.mark.parametrize(("model", "title", "other"), [(EMBED, "spawn_main", "squares"), (CHAT, "VLLM::Worker", EMBED)])
def test_a_killed_worker_is_replaced_while_the_other_models_answer(
    platform: Platform, model: str, title: str, other: str
) -> None:
    restarts = platform.status()[model]["restarts"]
    assert isinstance(restarts, int)
    group_id = _group(platform, model)
    os.kill(_process(group_id, title), signal.SIGKILL)
    _until_gone(group_id, timeout_s=5)
    deadline = time.monotonic() + _BACK_S
    while True:
        _ask(platform, other).raise_for_status()
        status = platform.status()[model]
        if status["state"] == "ready" and status["restarts"] == restarts + 1:
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    first = _ask(platform, model)
    assert first.status_code == 200
    if model == CHAT:  # what transformers answers, on the first request after a start
        assert first.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


def _group(platform: Platform, model: str) -> int:
    group_id = platform.status()[model]["group_id"]
    assert isinstance(group_id, int)
    return group_id


def _process(group_id: int, title: str) -> int:
    """The process of the group with that word in its command line."""
    return next(member.pid for member in process_group.members(group_id) if title in member.title)


def _until_gone(group_id: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while left := process_group.members(group_id):
        assert time.monotonic() < deadline, f"orphaned: {left}"
        time.sleep(0.05)


def _ask(platform: Platform, model: str) -> httpx.Response:
    if model == EMBED:
        return httpx.post(f"{platform.url}/v1/embeddings", json={"model": EMBED, "input": "x"}, timeout=60)
    if model == CHAT:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        body = {"model": CHAT, "messages": question, "max_tokens": 20, "temperature": 0}
        return httpx.post(f"{platform.url}/v1/chat/completions", json=body, timeout=60)
    return httpx.post(f"{platform.url}/predict/{model}", json={"input": 2}, timeout=60)
