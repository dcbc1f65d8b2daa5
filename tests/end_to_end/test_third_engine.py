"""A package outside Litport brings an engine and routes, and no room of Litport knows of it."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.conftest import Platform, litport, serving
from tests.services import outside

RECIPE = "models: {mirror: {engine: reverse, suffix: '!'}}\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment in which the package is installed: its module, and what an installer writes beside it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(outside.__file__).with_name("reverse_engine.py"), site)
    about = site / "reverse_engine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: reverse-engine\nVersion: 1.0\n")
    points = "[litport.engines]\nreverse = reverse_engine:KIND\n[litport.routes]\nreverse = reverse_engine:ROUTES\n"
    (about / "entry_points.txt").write_text(points)
    return _on_path(site)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "mirror.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def mirror(installed: Mapping[str, str], recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with one model of the engine."""
    with serving(tmp_path_factory.mktemp("mirror"), str(recipe), environ=installed) as platform:
        yield platform


def test_it_is_served_by_its_own_route_and_by_predict(mirror: Platform) -> None:
    by_route = httpx.post(f"{mirror.url}/v1/reverse", json={"model": "mirror", "text": "hello"})
    assert by_route.json() == {"text": "olleh!"}
    assert httpx.post(f"{mirror.url}/predict/mirror", json={"text": "ab"}).json() == {"text": "ba!"}
    assert httpx.get(f"{mirror.url}/count").json() == {"models": 1}


def test_the_front_door_treats_its_routes_as_any_other(mirror: Platform) -> None:
    assert httpx.get(f"{mirror.url}/v1/reverse").headers["allow"] == "POST"
    error = httpx.post(
        f"{mirror.url}/v1/reverse", content=b'{"model": 1}', headers={"content-type": "application/json"}
    )
    assert (error.status_code, error.json()["error"]["param"]) == (400, "model")
    assert httpx.post(f"{mirror.url}/v1/chat/completions", json={"model": "mirror"}).status_code == 400


def test_status_models_and_metrics_have_it(mirror: Platform) -> None:
    status = mirror.status()["mirror"]
    assert (status["kind"], status["paths"]) == ("reverse", ["/v1/reverse", "/predict/mirror"])
    [entry] = httpx.get(f"{mirror.url}/v1/models").json()["data"]
    assert (entry["id"], entry["kind"], entry["state"]) == ("mirror", "reverse", "ready")
    address = httpx.get(f"{mirror.url}/status").json()["metrics_address"]
    page = httpx.get(address).text
    assert 'litport_model_info{engine="reverse",model="mirror",source=""} 1.0' in page
    assert 'litport_requests_total{key="anonymous",model="mirror",route="/v1/reverse",status="200"}' in page
    assert 'reverse_up{model="mirror"} 1' in page


def test_the_document_has_its_routes(mirror: Platform) -> None:
    paths = httpx.get(f"{mirror.url}/openapi.json").json()["paths"]
    operation = paths["/v1/reverse"]["post"]
    assert operation["operationId"] == "reverse"
    assert operation["requestBody"]["content"]["application/json"]["example"] == {"text": "abc", "model": "mirror"}
    assert paths["/count"]["get"]["operationId"] == "count_models"
    assert paths["/predict/mirror"]["post"]["tags"] == ["predict"]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("--models.mirror.sufix=x", "did you mean --models.mirror.suffix?"),
        ("--models.mirror.suffix= ", "models.mirror.suffix: expected a text that can be seen"),
        ("--models.mirror.engine=revers", "did you mean reverse?"),
        ("--bench.rungs=[bare]", "expected"),
    ],
)
def test_its_settings_are_checked(installed: Mapping[str, str], recipe: Path, setting: str, problem: str) -> None:
    outcome = litport("config", "check", str(recipe), setting, environ=installed)
    assert outcome.returncode == 2
    assert problem in outcome.stderr


def test_the_schema_of_a_recipe_has_its_settings(installed: Mapping[str, str]) -> None:
    schema = json.loads(litport("config", "schema", environ=installed).stdout)
    assert "suffix" in schema["$defs"]["ReverseModel"]["properties"]


def test_a_package_that_cannot_be_imported_is_named(installed: Mapping[str, str], recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(installed["PYTHONPATH"].partition(os.pathsep)[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "reverse_engine.py").write_text("import no_such_module\n")
    outcome = litport("config", "check", str(recipe), environ=_on_path(tmp_path))
    assert outcome.returncode == 2
    assert "engine 'reverse' (reverse_engine:KIND): ModuleNotFoundError" in outcome.stderr


@pytest.mark.long
def test_bench_climbs_its_ladder(installed: Mapping[str, str], recipe: Path, tmp_path: Path) -> None:
    words = ("--bench.workload.requests", "60", "--bench.load.users", "2", "--bench.passes", "1")
    outcome = litport(
        "bench", "run", str(recipe), "--out", str(tmp_path / "out"), *words, environ=installed, timeout_s=300
    )
    assert (tmp_path / "out" / "result.json").is_file(), outcome.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [rung["name"] for rung in result["rungs"]] == ["bare-reverse", "litport"]
    assert all(rung["figures"]["requests"] == 60 for rung in result["rungs"])
    layers = [row["name"] for row in result["rungs"][1]["time"]["rows"]]
    assert layers == ["client lateness", "network, accept, client read", "front door", "server"]


def _on_path(folder: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}
