"""What is sent to Ray of a recipe: what a replica needs, and nothing secret."""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import SettingsError, UserError
from servers.cluster import scaling
from servers.cluster.application import applications_of, through_ray
from servers.cluster.deployment import DEPLOYMENT
from servers.engines.replica import awaited
from servers.platform.targets import check, load

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


def test_a_range_of_replicas_may_change_and_the_processes_stay(tmp_path: Path) -> None:
    model = {"engine": "litserve", "api": "echo"}
    first, second = (
        applications_of(load([str(_recipe(tmp_path, {"models": {"one": {**model, "replicas": replicas}}}))], []))[0]
        for replicas in ({"max": 4, "target_running": 8}, {"min": 2, "max": 3, "target_running": 5})
    )
    (deployment,) = first["deployments"]
    assert "num_replicas" not in deployment
    config = deployment["autoscaling_config"]
    assert (config["min_replicas"], config["max_replicas"], config["target_ongoing_requests"]) == (1, 4, 8)
    module, _, function = config["policy"]["policy_function"].partition(":")
    assert getattr(import_module(module), function) is scaling.desired_replicas
    assert first["args"] == second["args"]
    assert config["policy"] == second["deployments"][0]["autoscaling_config"]["policy"]


@pytest.mark.parametrize(("figures", "count"), [({"a": 6.0, "b": 4.5}, 2.625), ({"a": 0.0}, 0), ({}, 3)])
def test_the_number_of_replicas_follows_what_all_of_them_tell(figures: dict[str, float], count: float) -> None:
    context = SimpleNamespace(
        aggregated_metrics={scaling.METRIC: figures} if figures else {},
        target_num_replicas=3,
        config=SimpleNamespace(target_ongoing_requests=4),
    )
    assert scaling.desired_replicas(context) == (count, {})


def test_a_range_without_a_cluster_is_refused(tmp_path: Path) -> None:
    model = {"engine": "litserve", "api": "echo", "replicas": {"max": 4, "target_running": 8}}
    recipe = _recipe(tmp_path, {"models": {"one": model}})
    with pytest.raises(SettingsError, match=r"models\.one\.replicas: expected a number without cluster\.dashboard"):
        check(load([str(recipe)], []))


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
