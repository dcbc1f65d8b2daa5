"""The composition of a Ray cluster: a model is deployed on real containers of its image, asked and taken away."""

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.containers.bases import STAND_IN
from tests.containers.conftest import Builder, lend
from tests.containers.project import Project, image_of, project, provide
from tests.services.polling import wait_until
from tests.services.ports import free_port

pytestmark = pytest.mark.long

# Debian's Redis, under the name and at the place of the image's own server, which speaks the same protocol.
STORE = f"""FROM {STAND_IN}
RUN apt-get update && apt-get install --yes --no-install-recommends redis-server \\
    && ln -s redis-server /usr/bin/valkey-server
WORKDIR /tmp
"""


@pytest.fixture(scope="module")
def composition(
    builder: Builder, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Project, str]]:
    """Docker Compose with the profile `cluster`, once it is up, and the address of its front door."""
    folder = tmp_path_factory.mktemp("cluster")
    secret_texts = {name: secrets.token_hex(32) for name in ("ray_token", "cluster_secret")}
    lend(folder / "secrets", secret_texts)
    folder.chmod(0o711)  # the way to a file that is lent, of a folder of pytest's own
    folder.parent.chmod(0o711)
    port = free_port()
    variables = {"RECIPE": "echo.yaml", "API_PORT": str(port), "RAY_NODES": "2"}
    variables |= {"RECIPE_DIR": str(REPOSITORY / "configs/recipes")}
    with project(builder, "litport-tests-cluster", ("cluster",), variables, folder) as run:
        assert image_of("litport-cluster") == image
        builder.make("cpu-ray")
        provide(builder, "ray-store", STORE)
        run("up", "--no-build", "--pull=never", "--detach")
        yield run, f"http://127.0.0.1:{port}"


def test_a_model_is_deployed_on_the_nodes_asked_and_taken_away(composition: tuple[Project, str]) -> None:
    run, url = composition
    words = ("exec", "-T", "litport-cluster", "litport")
    wait_until(lambda: _nodes(run) == 3, 120, every_s=1, problem=lambda: run("logs", "--tail=40").stdout)
    deployed = run(*words, "deploy", "/recipes/echo.yaml", check=False)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr + run("logs", "--tail=40").stdout
    wait_until(lambda: _is_ready(url), 60, problem=lambda: run("logs", "--tail=40", "litport-cluster").stdout)
    answer = httpx.post(f"{url}/predict/echo", json={"input": "from a node"}, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"output": "from a node"})
    status = run(*words, "status", "--ray", "http://ray-head:8265").stdout
    assert "1 of 1 replicas run" in status
    assert run(*words, "undeploy", "/recipes/echo.yaml").returncode == 0
    wait_until(lambda: not _is_ready(url), 30)


def test_each_container_of_the_cluster_ends_by_a_signal_in_time(
    composition: tuple[Project, str], builder: Builder
) -> None:
    run, _ = composition
    run("stop", "ray-node", "ray-head", "litport-cluster")
    names = run("ps", "--all", "--format={{.Name}}").stdout.split()
    states = {name: builder.engine.inspect(name)["State"] for name in names if "store" not in name}
    assert len(states) == 4
    # Ray ends with 1 after SIGTERM (findings/ray_node_status.sh); 137 is of one that had to be killed.
    expected = {name: 0 if "litport-cluster-" in name.removeprefix(run.name) else 1 for name in states}
    assert {name: state["ExitCode"] for name, state in states.items()} == expected


def _nodes(run: Project) -> int:
    """How many nodes the control plane holds to be alive."""
    code = (
        "import json, urllib.request as r; token = open('/run/secrets/ray_token').read();"
        "ask = r.Request('http://ray-head:8265/api/v0/nodes', headers={'Authorization': 'Bearer ' + token});"
        "nodes = json.load(r.urlopen(ask, timeout=5))['data']['result']['result'];"
        "print(sum(node['state'] == 'ALIVE' for node in nodes))"
    )
    done = run("exec", "-T", "litport-cluster", "python", "-c", code, check=False)
    return int(done.stdout or 0) if done.returncode == 0 else 0


def _is_ready(url: str) -> bool:
    try:
        document: dict[str, Any] = httpx.get(f"{url}/ready", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return False
    return bool(document["models"].get("echo") == "ready")
