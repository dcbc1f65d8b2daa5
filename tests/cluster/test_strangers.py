"""LitAPIs that know nothing of Litport answer on Ray as they do on one machine."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.cluster.conftest import Ray, gateway
from tests.conftest import serving
from tests.servers.engines.litserve.host.cases import ANSWERS, BODIES
from tests.servers.engines.litserve.host.twins import Case, Raw

pytestmark = pytest.mark.long

_NAMES = {"simple", "typed", "form", "union", "upload", "values", "failing"}
CASES = [case for case in (*BODIES, *ANSWERS) if case.name in _NAMES]
# What differs between two answers to the same request.
_OWN = {"date", "x-request-id", "server", "content-length", "transfer-encoding"}


class Pair(NamedTuple):
    """A client of a gateway, and one of `litport serve` with the same models."""

    ray: httpx.Client
    here: httpx.Client


@pytest.fixture(scope="module")
def pair(ray: Ray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    models = {case.name: {"engine": "litserve", "api": case.api, "resources": {"cpus": 0.1}} for case in CASES}
    recipe = ray.recipe(models, "strangers")
    assert ray.litport("deploy", str(recipe), timeout_s=180).returncode == 0
    try:
        with gateway(ray, recipe) as far, serving(tmp_path_factory.mktemp("here"), str(recipe)) as here:
            yield Pair(far.http, here.http)
    finally:
        ray.litport("undeploy", str(recipe))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_litapi_answers_on_ray_as_on_one_machine(pair: Pair, case: Case) -> None:
    for request in case.requests:
        assert _answer(pair.ray, case, request) == _answer(pair.here, case, request)


def _answer(client: httpx.Client, case: Case, request: Any) -> tuple[int, dict[str, str], Any]:
    raw = request if isinstance(request, Raw) else Raw("application/json", json.dumps(request).encode())
    headers = {"content-type": raw.content_type} if raw.content_type else {}
    url = f"/predict/{case.name}{'?' + raw.query if raw.query else ''}"
    answer = client.request(raw.method, url, content=raw.data, headers=headers)
    fields = {name: value for name, value in answer.headers.items() if name not in _OWN}
    return answer.status_code, fields, _without_id(answer)


def _without_id(answer: httpx.Response) -> Any:
    return answer.text.replace(answer.headers.get("x-request-id", "-"), "ID")
