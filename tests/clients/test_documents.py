"""The types of a platform's answers: each real answer has their fields in order, and a reader ignores later ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients import documents
from servers.models.instance import State
from tests.conftest import REPOSITORY
from tests.services.front_door import open_door
from tests.services.tiny_engine import TinyEngine

TYPES = {
    "/health": documents.Health,
    "/ready": documents.Readiness,
    "/status": documents.Status,
    "/v1/models": documents.ModelList,
    "/v1/models/one": documents.ModelEntry,
    "/nowhere": documents.Error,
}
LATER = {"of_a_later_version": {"deep": [1]}}
STATUS: dict[str, Any] = {"version": "1", "address": "http://x", "uptime_s": 1, "in_flight": 0, "models": []}


def test_each_answer_of_a_platform_is_its_type_to_the_byte(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        door.client.post("/predict/one", json={}).raise_for_status()
        for path, kind in TYPES.items():
            answer = door.client.get(path).content
            assert msgspec.json.encode(msgspec.json.decode(answer, type=kind)) == answer, path


def test_a_reader_ignores_fields_and_shows_states_of_a_later_platform() -> None:
    answer = json.dumps({"ready": False, "models": {"one": "sleeping"}, **LATER})
    assert documents.read_readiness(answer.encode()).models == {"one": "sleeping"}
    assert documents.read_status(json.dumps({**STATUS, **LATER}).encode()).version == "1"


def test_the_fields_that_an_earlier_platform_lacks_are_none() -> None:
    status = documents.read_status(json.dumps(STATUS).encode())
    assert (status.metrics_address, status.hardware) == (None, None)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", json.dumps({**STATUS, "in_flight": "<i>"}).encode()])
def test_an_answer_of_another_kind_is_no_status(answer: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        documents.read_status(answer)


def test_the_states_are_those_of_a_model() -> None:
    assert list(documents.STATES) == [state.value for state in State]


def test_reading_needs_no_heavy_import() -> None:
    program = "import sys, clients.documents; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert {"msgspec", "clients"} <= set(ended.stdout.split())
    assert {"httpx", "rich", "pydantic", "configs", "servers"} & set(ended.stdout.split()) == set()
