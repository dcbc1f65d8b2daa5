"""A platform whose one model changes while requests go on."""

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import httpx
import pytest

from configs.settings import LitServeModel
from litport import main
from servers.engines import registry
from servers.engines.kind import EngineKind
from servers.models.model import Model
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"
CHECKS = {"knows": {"path": CHAT, "body": {"question": 1}, "equals": {"answer": "one"}, "within_s": 2}}
ROOT, GUEST = "r" * 20, "g" * 20


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A platform with one model, whose checks its new versions must pass."""
    folder = tmp_path_factory.mktemp("versions")
    keys = folder / "keys.yaml"
    keys.write_text(json.dumps({"root": {"key": ROOT, "admin": True}, "guest": {"key": GUEST}}))
    keys.chmod(0o600)
    kind = EngineKind(LitServeModel, lambda name, settings, _: TinyEngine(name, environ=settings.env))
    model = {"checks": CHECKS, "canary_interval_s": None, "recorded_requests": 8}
    sections: dict[str, Any] = {
        "auth": {"keys_file": str(keys)},
        "telemetry": {"audit_file": str(folder / "audit.jsonl")},
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.dict(registry._KINDS, {"litserve": kind}),
    ):
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        with open_door(folder, TinyEngine("one"), model=model, **sections) as door:
            door.client.headers["x-api-key"] = ROOT
            yield door


def serving(door: Door) -> Model:
    return door.supervisor.models["one"]


def command(door: Door, *arguments: str) -> None:
    assert main([*arguments, "--port", str(door.port)]) in (0, None)


def ask(door: Door, client: httpx.Client | None = None, user: int = 0) -> httpx.Response:
    question = {"model": "one", "plain": True, "wait_s": 0.01, "user": user}
    return (client or door.client).post(CHAT, json=question)


@contextlib.contextmanager
def traffic(door: Door) -> Iterator[list[list[tuple[int, str]]]]:
    """Four users, each with its own question, that ask until the block ends; each answer's status and version."""
    connections: list[list[tuple[int, str]]] = [[] for _ in range(4)]
    ended = threading.Event()

    def keep_asking(user: int, answers: list[tuple[int, str]]) -> None:
        with httpx.Client(base_url=door.client.base_url, headers=door.client.headers, timeout=20) as client:
            while not ended.is_set():
                answer = ask(door, client, user)
                answers.append((answer.status_code, answer.headers.get("x-litport-version", "")))

    with ThreadPoolExecutor() as pool:
        users = [pool.submit(keep_asking, *item) for item in enumerate(connections)]
        wait_until(lambda: all(len(answers) > 2 for answers in connections))
        try:
            yield connections
        finally:
            ended.set()
            for user in users:
                user.result()
