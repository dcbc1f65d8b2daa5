"""What `deploy` and `undeploy` ask Ray for, and what they tell of it."""

from typing import Any

import pytest

from configs.errors import UserError
from servers.cluster import rollout
from servers.cluster.application import IMPORT_PATH
from tests.services.ray_dashboard import FakeDashboard, fake_dashboard

OTHERS = {"name": "theirs", "import_path": "theirs:app"}
FAILURE = """The deployment failed to start 1 times.
Traceback (most recent call last):
  File "x.py", line 1, in y
RuntimeError: models.one: no such file"""


def test_a_deployment_leaves_the_applications_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_POLL_S", 0.01)
    with fake_dashboard() as ray, ray.client() as dashboard:
        ray.applications = {"theirs": {"deployed_app_config": OTHERS, "status": "RUNNING"}}
        ray.run("one", "a")
        lines: list[str] = []
        assert rollout.deploy(dashboard, [_application("one")], lines.append)
        assert ray.declared[-1]["applications"] == [OTHERS, _application("one")]
        assert lines == ["one: running, 1 of 1 replicas run (127.0.0.1)"]
        assert rollout.lines(dashboard) == lines
        rollout.undeploy(dashboard, ["litport-one"], lines.append)
        assert ray.declared[-1]["applications"] == [OTHERS]
        assert ray.deleted == 0


def test_a_range_is_told_with_the_number_that_ray_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_POLL_S", 0.01)
    with fake_dashboard() as ray, ray.client() as dashboard:
        ray.run("one", "a", target=2)
        application = _application("one")
        application["deployments"][0]["num_replicas"] = None
        application["deployments"][0]["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 4}
        lines: list[str] = []
        assert rollout.deploy(dashboard, [application], lines.append)
        assert lines == ["one: running, 1 of 2 replicas run (127.0.0.1), 1 to 4 by load"]


def test_the_last_application_takes_ray_serve_with_it() -> None:
    with fake_dashboard() as ray, ray.client() as dashboard:
        ray.run("one", "a")
        rollout.undeploy(dashboard, ["litport-one"], lambda _: None)
        assert ray.deleted == 1


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("DEPLOY_FAILED", FAILURE, "one: models.one: no such file"),
        (
            "DEPLOYING",
            "",
            "one: 1 of 1 replicas fit on no node: each needs 8 CPU, 1 GPU, and there are free 6 of 8 CPU, 0 of 0 GPU",
        ),
    ],
)
def test_a_deployment_that_cannot_run_is_told_why(
    monkeypatch: pytest.MonkeyPatch, status: str, message: str, expected: str
) -> None:
    monkeypatch.setattr(rollout, "_POLL_S", 0.01)
    monkeypatch.setattr(rollout, "_PLACEMENT_S", 0.0)
    with fake_dashboard() as ray, ray.client() as dashboard:
        ray.nodes = [
            {"node_id": name, "node_ip": name, "state": "ALIVE", "resources_total": {"CPU": 8.0}} for name in "ab"
        ]
        ray.load = {"usageByNode": {"a": {"CPU": [2.0, 8.0]}}, "resourceDemand": [[{"CPU": 8.0, "GPU": 1.0}, 1]]}
        ray.run("one", status=status, message=message)
        lines: list[str] = []
        assert not rollout.deploy(dashboard, [_application("one")], lines.append)
        assert lines[-1].startswith(expected)


def test_a_wrong_token_and_a_silent_dashboard_are_told() -> None:
    with fake_dashboard() as ray:
        with ray.client("another") as dashboard, pytest.raises(UserError, match="refuses the token"):
            dashboard.instance()
        silent = FakeDashboard(ray.url)
    with silent.client() as dashboard, pytest.raises(UserError, match="does not answer"):
        dashboard.instance()


def _application(model: str) -> dict[str, Any]:
    options = {"num_cpus": 8, "num_gpus": 1}
    return {
        "name": f"litport-{model}",
        "import_path": IMPORT_PATH,
        "args": {"name": model},
        "deployments": [{"num_replicas": 1, "ray_actor_options": options}],
    }
