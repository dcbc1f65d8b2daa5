"""The manifests of a Ray cluster for KubeRay: they fit each other, the lock, and what a node needs to be safe."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.settings import LitportSettings
from servers.cluster import kuberay, node
from servers.platform.targets import load
from tests.conftest import REPOSITORY
from tests.docker.queries import DOCKER
from tests.docker.test_kubernetes import VERSIONS, WITH_KUSTOMIZE, WITH_VALIDATOR, build, validate

FOLDER = DOCKER / "kubernetes" / "ray"
# KubeRay's own, without descriptions; of Pods, Kubernetes' schemas say what they are.
SCHEMA = Path(__file__).with_name("raycluster.schema.json")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def ray_cluster() -> dict[str, Any]:
    (document,) = documents("raycluster.yaml")
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayCluster")
    spec: dict[str, Any] = document["spec"]
    return spec


def templates() -> list[dict[str, Any]]:
    spec = ray_cluster()
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def printed(models: Any, **arguments: str) -> Any:
    """What `litport deploy --print kuberay` prints of a recipe."""
    overrides = [f"--{name}={value}" for name, value in {"models": json.dumps(models), **arguments}.items()]
    return yaml.safe_load(kuberay.manifest(load([], overrides)))


def test_the_manifest_is_what_deploy_prints_for_the_recipe_beside_it() -> None:
    text = kuberay.manifest(load([str(FOLDER / "recipe.yaml")], []))
    assert text == (FOLDER / "raycluster.yaml").read_text(encoding="utf-8"), "make docs writes it anew"


def test_each_replica_of_a_recipe_has_a_pod_as_large_as_the_largest_needs() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    echo = {"engine": "litserve", "api": "echo"}
    large = {**echo, "replicas": 2, "resources": {"cpus": 3.5, "memory_bytes": 5 * 10**9}}
    several = {**echo, "replicas": {"max": 3, "target_running": 2}, "resources": {"gpus": 0.5, "memory_bytes": 10**9}}
    manifest = printed({"large": large, "several": several}, **{"server.drain_timeout_s": "90.5"})
    for document in (manifest, yaml.safe_load((FOLDER / "raycluster.yaml").read_text(encoding="utf-8"))):
        jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    (group,) = manifest["spec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 5
    spec = group["template"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == "litport:cuda-ray"
    assert container["resources"] == {
        "requests": {"cpu": "3.5", "memory": "4769Mi"},
        "limits": {"memory": "6817Mi", "nvidia.com/gpu": "1"},
    }
    assert spec["terminationGracePeriodSeconds"] == 116


@WITH_VALIDATOR
def test_its_pods_are_valid(tmp_path: Path) -> None:
    for number, template in enumerate(templates()):
        metadata = {**template["metadata"], "name": "pod"}
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}))
        done = validate(file, VERSIONS[-1])
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_of_ray_is_that_of_the_lock() -> None:
    lock = (REPOSITORY / "requirements" / "ray.txt").read_text(encoding="utf-8")
    assert f"ray=={ray_cluster()['rayVersion']} " in lock


def test_each_node_has_the_safe_defaults_of_litport_ray_start() -> None:
    assert ray_cluster()["authOptions"] == {"mode": "token"}  # the operator sets RAY_AUTH_MODE by it
    defaults = {**node.REQUIRED, **node.DEFAULTS}
    del defaults["RAY_AUTH_MODE"]
    for template in templates():
        (container,) = template["spec"]["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert defaults.items() <= environment.items()


def test_no_pod_has_rights_that_it_does_not_need() -> None:
    for template in templates():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_the_head_finds_its_store_and_the_gateway_its_head() -> None:
    address = ray_cluster()["gcsFaultToleranceOptions"]["redisAddress"]
    store, service = documents("store.yaml")
    assert address == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert service["spec"]["selector"] == store["spec"]["template"]["metadata"]["labels"]
    deployment, front = documents("gateway.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["LITPORT_CLUSTER__DASHBOARD"]["value"] == "http://litport-ray-head-svc:8265"
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "litport-ray", "key": "auth_token"}
    assert front["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


@WITH_KUSTOMIZE
def test_the_gateways_mount_the_recipe_whose_replicas_have_a_worker_each() -> None:
    built = list(yaml.safe_load_all(build("ray")))
    (recipe,) = [document for document in built if document["kind"] == "ConfigMap"]
    (gateway,) = [document for document in built if document["kind"] == "Deployment"]
    volumes = gateway["spec"]["template"]["spec"]["volumes"]
    assert [recipe["metadata"]["name"]] == [each["configMap"]["name"] for each in volumes if "configMap" in each]
    settings = LitportSettings.from_layers([yaml.safe_load(recipe["data"]["recipe.yaml"])])
    (group,) = ray_cluster()["workerGroupSpecs"]
    assert group["replicas"] == sum(model.replica_count for model in settings.models.values())


def test_a_network_policy_covers_each_pod_of_the_cluster() -> None:
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in documents("networkpolicy.yaml")]
    (store, _) = documents("store.yaml")
    for template in (*templates(), store["spec"]["template"]):
        assert template["metadata"]["labels"] in selected
    images = re.findall(r"image: (\S+)", (FOLDER / "raycluster.yaml").read_text(encoding="utf-8"))
    assert set(images) == {"litport:cpu-ray"}
