"""The rungs on a Ray cluster: what they deploy, and that they leave alone what others have deployed."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.rungs.base import Rung
from benchmarks.rungs.cluster import ClusterRung
from benchmarks.rungs.context import RungContext
from benchmarks.rungs.factory import RungFactory
from benchmarks.rungs.harness import harness_of
from benchmarks.rungs.process import RungError
from configs.errors import UserError
from configs.settings import LitportSettings
from tests.services.ray_dashboard import TOKEN, fake_dashboard

ECHO = {"engine": "litserve", "api": "echo", "workers_per_device": 2, "max_batch_size": 4, "example": {"input": "a"}}
VLLM = {"engine": "vllm", "source": "smollm2-135m-instruct"}


def rungs(
    folder: Path, names: list[str], model: Any = ECHO, dashboard: str | None = "http://127.0.0.1:1"
) -> list[Rung]:
    cluster: dict[str, str] = {"dashboard": dashboard} if dashboard else {}
    layer = {"models": {"m": model}, "cluster": cluster, "bench": {"rungs": names}}
    settings = LitportSettings.from_layers([layer])
    return RungFactory(RungContext(settings, "m", None, folder), harness_of(settings.models["m"])).rungs([])


def test_a_rung_on_ray_has_as_many_replicas_as_its_name_says(tmp_path: Path) -> None:
    one, two, ingress = rungs(tmp_path, ["ray", "ray[2]", "ray-ingress[2]"], {**ECHO, "replicas": 3})
    deployments = []
    for rung in (one, two, ingress):
        assert isinstance(rung, ClusterRung)
        deployments += rung._application["deployments"]
    assert [deployment["num_replicas"] for deployment in deployments] == [3, 2, 2 * 2]
    assert deployments[2]["ray_actor_options"]["num_cpus"] == 0.5
    assert isinstance(ingress, ClusterRung)
    spec = ingress._application["args"]["spec"]
    assert (spec["batch_size"], spec["variant"]["runtime"]) == (4, "eager")


def test_a_rung_does_not_need_the_store_of_the_limits(tmp_path: Path) -> None:
    limits = {"redis_url": "redis://:secret@127.0.0.1:1/0", "max_body_bytes": 10}
    settings = LitportSettings.from_layers([{"models": {"m": ECHO}, "limits": limits}])
    assert RungContext(settings, "m", None, tmp_path)._recipe(1, 2, {})["limits"] == {"max_body_bytes": 10}


@pytest.mark.parametrize(
    ("name", "model", "dashboard", "problem"),
    [
        ("ray", ECHO, None, "ray needs cluster.dashboard"),
        ("ray-ingress", VLLM, "http://127.0.0.1:1", "ray-ingress measures a LitAPI"),
        ("ray-ingress[1]", {**ECHO, "stream": True}, "http://127.0.0.1:1", r"ray-ingress\[1\] measures no streams"),
    ],
)
def test_a_rung_that_cannot_be_is_refused(
    tmp_path: Path, name: str, model: Any, dashboard: str | None, problem: str
) -> None:
    with pytest.raises(UserError, match=f"^bench.rungs: {problem}"):
        rungs(tmp_path, [name], model, dashboard)


def test_what_runs_on_ray_already_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with fake_dashboard() as ray:
        ray.run("m", "a")
        gateway, ingress = rungs(tmp_path, ["ray", "ray-ingress"], dashboard=ray.url)
        for rung, problem in ((gateway, "litport-m runs on Ray already"), (ingress, "without applications")):
            with pytest.raises(RungError, match=problem):
                rung.start()
            rung.end()
        assert (ray.declared, ray.deleted) == ([], 0)
