"""The manifests: valid by Kubernetes' schemas, before and after kustomize, and fitting each other and Litport."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.settings import Server
from tests.conftest import REPOSITORY, litport
from tests.docker.queries import DOCKER

FOLDER = DOCKER / "kubernetes"
OVERLAYS = ("cpu", "gpu")
PLAIN = [
    *(file for file in sorted((FOLDER / "base").glob("*.yaml")) if file.name != "kustomization.yaml"),
    FOLDER / "secret.example.yaml",
    FOLDER / "ray" / "gateway.yaml",
    FOLDER / "ray" / "networkpolicy.yaml",
    FOLDER / "ray" / "store.yaml",
]
# The newest that the validator knows, and the oldest that the manifests are meant for.
VERSIONS = ("1.37", "1.29")

KUSTOMIZE = (
    ["kubectl", "kustomize"]
    if shutil.which("kubectl")
    else ["kustomize", "build"]
    if shutil.which("kustomize")
    else None
)
WITH_KUSTOMIZE = pytest.mark.skipif(
    KUSTOMIZE is None, reason="NOT TESTED: the overlays, as kubectl and kustomize are missing"
)


def _validator() -> str | None:
    beside = Path(sys.executable).with_name("kubernetes-validate")
    return str(beside) if beside.exists() else shutil.which("kubernetes-validate")


VALIDATOR = _validator()
WITH_VALIDATOR = pytest.mark.skipif(
    VALIDATOR is None, reason="NOT TESTED: the manifests' schemas, as kubernetes-validate is missing"
)


def validate(file: Path, version: str) -> "subprocess.CompletedProcess[str]":
    assert VALIDATOR is not None
    words = [VALIDATOR, "--strict", "-k", version, str(file)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@functools.cache
def build(folder: str) -> str:
    """What kustomize makes of a folder."""
    assert KUSTOMIZE is not None
    words = [*KUSTOMIZE, str(FOLDER / folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def objects(overlay: str) -> dict[tuple[str, str], dict[str, Any]]:
    documents = list(yaml.safe_load_all(build(f"overlays/{overlay}")))
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


def pod(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects(overlay)["Deployment", "litport"]["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> dict[str, Any]:
    (only,) = pod(overlay)["containers"]
    assert isinstance(only, dict)
    return only


@WITH_VALIDATOR
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", PLAIN, ids=lambda file: file.stem)
def test_every_plain_manifest_is_valid(file: Path, version: str) -> None:
    done = validate(file, version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout + done.stderr


@WITH_VALIDATOR
@WITH_KUSTOMIZE
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid(overlay: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(build(f"overlays/{overlay}"), encoding="utf-8")
    done = validate(tmp_path / "all.yaml", version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout + done.stderr
    kinds = {kind for kind, _ in objects(overlay)}
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    }


@WITH_VALIDATOR
def test_the_validator_sees_a_field_that_does_not_exist(tmp_path: Path) -> None:
    text = (FOLDER / "base" / "deployment.yaml").read_text(encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text(text.replace("enableServiceLinks", "enableServiceLink"), encoding="utf-8")
    assert validate(tmp_path / "wrong.yaml", VERSIONS[0]).returncode != 0


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_objects_of_an_overlay_fit_to_each_other(overlay: str) -> None:
    found = objects(overlay)
    template = found["Deployment", "litport"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    selectors = [
        found["Deployment", "litport"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget", "litport"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy", "litport"]["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"] for (kind, _), each in found.items() if kind == "Service"),
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    ports = {port["name"] for port in container(overlay)["ports"]}
    targets = [
        port["targetPort"] for (kind, _), each in found.items() if kind == "Service" for port in each["spec"]["ports"]
    ]
    assert sorted(targets) == sorted(ports)
    volumes = {volume["name"]: volume for volume in pod(overlay)["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container(overlay)["volumeMounts"]}
    assert ("PersistentVolumeClaim", volumes["models"]["persistentVolumeClaim"]["claimName"]) in found
    recipe = found["ConfigMap", volumes["recipe"]["configMap"]["name"]]
    assert list(recipe["data"]) == ["recipe.yaml"]
    example = yaml.safe_load((FOLDER / "secret.example.yaml").read_text(encoding="utf-8"))
    assert volumes["keys"]["secret"]["secretName"] == example["metadata"]["name"]
    assert not volumes["keys"]["secret"].get("optional")


@WITH_KUSTOMIZE
def test_the_operators_monitor_finds_the_metrics_and_calls_the_job_as_the_rules_do() -> None:
    monitor = yaml.safe_load(build("monitoring"))
    assert (monitor["kind"], monitor["apiVersion"]) == ("ServiceMonitor", "monitoring.coreos.com/v1")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [each for (kind, _), each in objects("cpu").items() if kind == "Service"]
    (metrics,) = (each for each in services if wanted <= each["metadata"]["labels"].items())
    assert monitor["spec"]["endpoints"][0]["port"] == metrics["spec"]["ports"][0]["name"]
    assert metrics["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "litport"


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_no_rights_that_it_does_not_need(overlay: str) -> None:
    spec, only = pod(overlay), container(overlay)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_is_given_the_time_that_litport_takes_to_stop(overlay: str) -> None:
    engines_end_s = 10  # servers/models/supervisor.py
    environ = {each["name"]: each["value"] for each in container(overlay)["env"]}
    drain_s = float(environ["LITPORT_SERVER__DRAIN_TIMEOUT_S"])
    assert drain_s == Server().drain_timeout_s
    (sleep, seconds) = container(overlay)["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod(overlay)["terminationGracePeriodSeconds"] > int(seconds) + drain_s + engines_end_s


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_probes_wait_for_a_cold_start_and_leave_restarts_to_litport(overlay: str) -> None:
    only = container(overlay)
    startup, readiness, liveness = only["startupProbe"], only["readinessProbe"], only["livenessProbe"]
    assert startup["httpGet"]["path"] == readiness["httpGet"]["path"] == "/ready"
    assert liveness["httpGet"]["path"] == "/health"
    start_timeout_s = 900  # of one model, its pull not counted
    assert startup["periodSeconds"] * startup["failureThreshold"] > start_timeout_s
    deadline_s = objects(overlay)["Deployment", "litport"]["spec"]["progressDeadlineSeconds"]
    assert deadline_s > startup["periodSeconds"] * startup["failureThreshold"]


@WITH_KUSTOMIZE
def test_only_the_gpu_overlay_asks_for_a_gpu() -> None:
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container("gpu")["image"] == "litport:cuda"
    assert "nvidia" not in build("overlays/cpu")
    assert container("cpu")["image"] == "litport:cpu"


@WITH_KUSTOMIZE
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_litport_accepts_recipe_settings_and_keys_as_the_pod_has_them(overlay: str, tmp_path: Path) -> None:
    recipe, secrets = tmp_path / "recipe.yaml", tmp_path / "secrets"
    secrets.mkdir()
    config = next(each for (kind, _), each in objects(overlay).items() if kind == "ConfigMap")
    recipe.write_text(config["data"]["recipe.yaml"], encoding="utf-8")
    environ = {each["name"]: each["value"] for each in container(overlay)["env"]}
    environ |= {"LITPORT_SECRETS_DIR": str(secrets), "LITPORT_SERVER__HOST": "0.0.0.0"}  # the image's
    (secrets / "litport_auth__api_keys").write_text("a-key-of-16-characters\n", encoding="utf-8")
    done = litport("config", "check", str(recipe), environ=environ)
    assert done.returncode == 0, done.stderr


def test_litport_does_not_start_with_the_keys_of_the_example(tmp_path: Path) -> None:
    example = yaml.safe_load((FOLDER / "secret.example.yaml").read_text(encoding="utf-8"))
    for name, text in example["stringData"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    environ = {"LITPORT_SECRETS_DIR": str(tmp_path)}
    done = litport("serve", "configs/recipes/echo.yaml", "--server.port", "0", environ=environ)
    assert done.returncode == 2
    assert "auth.api_keys: expected keys of visible ASCII without spaces" in done.stderr


@WITH_KUSTOMIZE
def test_the_services_own_variables_are_kept_out_as_they_would_be_settings() -> None:
    assert all(pod(overlay)["enableServiceLinks"] is False for overlay in OVERLAYS)
    done = litport("config", "check", "configs/recipes/echo.yaml", environ={"LITPORT_PORT": "tcp://192.0.2.1:80"})
    assert done.returncode == 2
    assert "LITPORT_PORT: no such setting" in done.stderr


def test_the_recipe_without_a_gpu_is_the_demos() -> None:
    ours = yaml.safe_load((FOLDER / "overlays" / "cpu" / "recipe.yaml").read_text(encoding="utf-8"))
    assert ours == yaml.safe_load((REPOSITORY / "configs" / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
