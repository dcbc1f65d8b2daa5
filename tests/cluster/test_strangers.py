"""LitAPIs that know nothing of Litport answer on Ray as they do on one machine, and so end requests that go wrong."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import httpx
import pytest

from tests.cluster.conftest import Ray, gateway
from tests.conftest import REPOSITORY, serving
from tests.servers.engines.litserve.host.cases import ANSWERS, BODIES
from tests.servers.engines.litserve.host.twins import Case, Raw
from tests.services.polling import wait_until

pytestmark = pytest.mark.long

_NAMES = {"simple", "typed", "form", "union", "upload", "values", "failing"}
CASES = [case for case in (*BODIES, *ANSWERS) if case.name in _NAMES]
SLOW = REPOSITORY / "tests/services/strangers/slow.py"
SMALL: dict[str, Any] = {"engine": "litserve", "resources": {"cpus": 0.1}}
MODELS = {
    **{case.name: {"api": case.api, **SMALL} for case in CASES},
    "slow": {"api": f"{SLOW}:SlowAPI", **SMALL},
    "echo": {"api": "echo", "max_running": 1, **SMALL},
}
LARGEST, LONG = 64 * 2**20, 20 * 2**20
JSON = {"content-type": "application/json"}
# What differs between two answers to the same request.
_OWN = {"date", "x-request-id", "server", "content-length", "transfer-encoding"}


class Pair(NamedTuple):
    """A client of a gateway, and one of `litport serve` with the same models."""

    ray: httpx.Client
    here: httpx.Client


@pytest.fixture(scope="module")
def pair(ray: Ray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    recipe = ray.recipe(MODELS, "strangers")
    assert ray.litport("deploy", str(recipe), timeout_s=180).returncode == 0
    try:
        with (
            mock.patch.dict(os.environ, {"LITPORT_LIMITS__WRITE_TIMEOUT_S": "2"}),
            gateway(ray, recipe) as far,
            serving(tmp_path_factory.mktemp("here"), str(recipe)) as here,
        ):
            yield Pair(far.http, here.http)
    finally:
        ray.litport("undeploy", str(recipe))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_litapi_answers_on_ray_as_on_one_machine(pair: Pair, case: Case) -> None:
    for request in case.requests:
        assert _answer(pair.ray, case, request) == _answer(pair.here, case, request)


def deadline(client: httpx.Client, folder: Path) -> Any:
    answer = _ask(client, folder, "stuck", "asleep", headers={"x-request-timeout": "1"})
    return answer.status_code, answer.json()["error"]["code"], _next(client, folder)


def client_that_leaves(client: httpx.Client, folder: Path) -> Any:
    with pytest.raises(httpx.ReadTimeout):
        _ask(client, folder, "left", "asleep", timeout=1)
    return _next(client, folder)


def slow_reader(client: httpx.Client, folder: Path) -> Any:
    """The model has one turn, so that the next request is answered once the reader is cut off."""
    body = json.dumps({"input": "x" * LONG}).encode()
    head = f"POST /predict/echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as reader:
        reader.sendall(f"{head}\r\n\r\n".encode() + body)
        wait_until(lambda: _running(client, "echo") == 1)
        answer = client.post("/predict/echo", json={"input": "next"}, timeout=20)
        length = 0
        with contextlib.suppress(ConnectionResetError):
            while part := reader.recv(2**20):
                length += len(part)
    return answer.status_code, length >= LONG


def largest_body(client: httpx.Client, folder: Path) -> Any:
    body = json.dumps(_body(folder, "large", "at once")).encode()
    padded = body + b" " * (LARGEST - len(body))
    answer = client.post("/predict/slow", content=padded, headers=JSON, timeout=60)
    larger = client.post("/predict/slow", content=padded + b" ", headers=JSON, timeout=60)
    return answer.status_code, answer.json()["seen"][-1], larger.status_code, larger.json()["error"]["code"]


def oversized_head(client: httpx.Client, folder: Path) -> Any:
    answer = client.post("/predict/slow", json=_body(folder, "head", "at once"), headers={"x-long": "x" * 40_000})
    return answer.status_code, _next(client, folder)[0]


@pytest.mark.parametrize(
    ("way", "outcome"),
    [
        (deadline, (504, "timeout", (200, ["stuck", "next"]))),
        (client_that_leaves, (200, ["left", "next"])),
        (slow_reader, (200, False)),
        (largest_body, (200, "large", 413, "request_too_large")),
        (oversized_head, (431, 200)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_request_that_goes_wrong_ends_on_ray_as_on_one_machine(
    pair: Pair, way: Callable[[httpx.Client, Path], Any], outcome: Any, tmp_path: Path
) -> None:
    for client in pair:
        folder = tmp_path / str(client.base_url.port)
        folder.mkdir()
        assert way(client, folder) == outcome


def _body(folder: Path, name: str, how: str) -> dict[str, str]:
    return {"name": name, "how": how, "begun": str(folder / name)}


def _ask(client: httpx.Client, folder: Path, name: str, how: str, **options: Any) -> httpx.Response:
    return client.post("/predict/slow", json=_body(folder, name, how), **options)


def _running(client: httpx.Client, name: str) -> int:
    models = {model["name"]: model for model in client.get("/status").json()["models"]}
    return int(models[name]["running"])


def _next(client: httpx.Client, folder: Path) -> tuple[int, list[str]]:
    """The status of the next request, which finds the worker free, and the last two that the worker has seen."""
    answer = _ask(client, folder, "next", "at once", timeout=20)
    return answer.status_code, answer.json()["seen"][-2:]


def _answer(client: httpx.Client, case: Case, request: Any) -> tuple[int, dict[str, str], Any]:
    raw = request if isinstance(request, Raw) else Raw("application/json", json.dumps(request).encode())
    headers = {"content-type": raw.content_type} if raw.content_type else {}
    url = f"/predict/{case.name}{'?' + raw.query if raw.query else ''}"
    answer = client.request(raw.method, url, content=raw.data, headers=headers)
    fields = {name: value for name, value in answer.headers.items() if name not in _OWN}
    return answer.status_code, fields, _without_id(answer)


def _without_id(answer: httpx.Response) -> Any:
    return answer.text.replace(answer.headers.get("x-request-id", "-"), "ID")
