"""What is sent to Ray of a recipe: what a replica needs, and nothing secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from servers.cluster.application import applications_of, through_ray
from servers.cluster.deployment import DEPLOYMENT
from servers.engines.replica import awaited
from servers.platform.targets import load

RECIPE: dict[str, Any] = {
    "models": {
        "org/vectors": {
            "engine": "litserve",
            "api": "./my_api.py:MyAPI",
            "replicas": 2,
            "resources": {"cpus": 0.5, "gpus": 2, "memory_bytes": 1000},
            "devices": [[0], [1]],
            "aliases": ["vectors"],
        },
        "far": {"engine": "remote", "url": "http://127.0.0.1:1/v1"},
    },
    "cluster": {"secret_file": "./secret"},
    "auth": {"api_keys": ["a-key-of-a-caller"]},
}


def test_a_model_becomes_an_application_with_its_resources(tmp_path: Path) -> None:
    (application,) = applications_of(load([str(_recipe(tmp_path, RECIPE))], []))
    assert application["name"] == "litport-org--vectors"
    assert application["route_prefix"] is None
    (deployment,) = application["deployments"]
    assert deployment["name"] == DEPLOYMENT
    assert deployment["num_replicas"] == 2
    assert deployment["ray_actor_options"] == {"num_cpus": 0.5, "num_gpus": 2, "memory": 1000}
    assert application["args"]["name"] == "org/vectors"
    assert json.loads(application["args"]["recipe"]) == {
        "models": {"org/vectors": {"engine": "litserve", "api": f"{tmp_path / 'my_api.py'}:MyAPI"}},
        "cluster": {"secret_file": str(tmp_path / "secret")},
    }


def test_what_only_the_gateway_decides_leaves_the_replicas_as_they_are(tmp_path: Path) -> None:
    model = RECIPE["models"]["org/vectors"]
    changed = {**model, "aliases": ["others"], "max_running": 3, "replicas": 3, "resources": {}, "devices": None}
    recipes = [_recipe(tmp_path, {**RECIPE, "models": {"org/vectors": entry}}) for entry in (model, changed)]
    first, second = (applications_of(load([str(recipe)], []))[0]["args"] for recipe in recipes)
    assert first == second


def test_a_secret_is_not_sent(tmp_path: Path) -> None:
    model = {"engine": "litserve", "api": "echo", "env": {"HF_TOKEN": "hf_123"}}
    recipe = _recipe(tmp_path, {"models": {"one": model}})
    with pytest.raises(UserError, match=r"models\.one\.env\.HF_TOKEN: expected no secret") as error:
        applications_of(load([str(recipe)], []))
    assert "hf_123" not in str(error.value)


def test_a_gateway_has_the_replicas_of_ray_in_the_place_of_processes(tmp_path: Path) -> None:
    settings = through_ray(load([str(_recipe(tmp_path, RECIPE))], [])).settings
    assert settings.models["org/vectors"].instances == [awaited.ADDRESS]
    assert settings.models["far"].instances == []


def _recipe(folder: Path, document: dict[str, Any]) -> Path:
    (folder / "my_api.py").touch()
    (folder / "secret").touch()
    file = folder / f"{len(list(folder.iterdir()))}.yaml"
    file.write_text(json.dumps(document))
    return file
