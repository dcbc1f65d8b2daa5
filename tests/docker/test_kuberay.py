"""The manifests of a Ray cluster for KubeRay: they fit each other, the lock, and what a node needs to be safe."""

import re
from typing import Any

import yaml

from configs.settings import LitportSettings
from servers.cluster import node
from tests.conftest import REPOSITORY
from tests.docker.queries import DOCKER
from tests.docker.test_kubernetes import WITH_KUSTOMIZE, build

FOLDER = DOCKER / "kubernetes" / "ray"


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
def test_the_gateways_mount_the_recipe_whose_models_fit_on_the_workers() -> None:
    built = list(yaml.safe_load_all(build("ray")))
    (recipe,) = [document for document in built if document["kind"] == "ConfigMap"]
    (gateway,) = [document for document in built if document["kind"] == "Deployment"]
    volumes = gateway["spec"]["template"]["spec"]["volumes"]
    assert [recipe["metadata"]["name"]] == [each["configMap"]["name"] for each in volumes if "configMap" in each]
    settings = LitportSettings.from_layers([yaml.safe_load(recipe["data"]["recipe.yaml"])])
    cpus = sum(model.replica_count * model.resources.cpus for model in settings.models.values())
    (group,) = ray_cluster()["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert cpus == group["replicas"] * int(container["resources"]["requests"]["cpu"])


def test_a_network_policy_covers_each_pod_of_the_cluster() -> None:
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in documents("networkpolicy.yaml")]
    (store, _) = documents("store.yaml")
    for template in (*templates(), store["spec"]["template"]):
        assert template["metadata"]["labels"] in selected
    images = re.findall(r"image: (\S+)", (FOLDER / "raycluster.yaml").read_text(encoding="utf-8"))
    assert set(images) == {"litport:cpu-ray"}
