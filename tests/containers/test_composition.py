"""The composition with monitoring comes up on a real engine, and Prometheus scrapes Litport in it."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.containers.bases import STAND_IN
from tests.containers.conftest import Builder
from tests.containers.engine import compose
from tests.services.polling import wait_until
from tests.services.ports import free_port

pytestmark = pytest.mark.long

FILE = REPOSITORY / "docker" / "compose.yaml"
PROJECT = "litport-tests"
SERVICES = ("litport-cpu", "prometheus")
# Debian's package, at the places where the image of its makers has its data and its user.
PROMETHEUS = f"""FROM {STAND_IN}
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus wget \\
    && install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
"""


@pytest.fixture(scope="module")
def ports(builder: Builder, image: str) -> Iterator[dict[str, int]]:
    """The ports of the composition, once it is up and healthy, by the variables that set them."""
    command = compose()
    if command is None:
        pytest.skip("NOT TESTED: the composition on an engine, as docker-compose is missing")
    services: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    assert services["litport-cpu"]["image"] == image
    _have_prometheus(builder, services["prometheus"]["image"])
    ports = {name: free_port() for name in ("API_PORT", "PROMETHEUS_PORT")}
    environ = {**os.environ, **builder.engine.environ, "RECIPE": "echo.yaml"}
    environ |= {name: str(port) for name, port in ports.items()}
    command += ["--project-name", PROJECT, "--file", str(FILE), "--env-file", os.devnull]
    command += ["--profile", "cpu", "--profile", "monitoring"]

    def run(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run([*command, *words], env=environ, capture_output=True, text=True, check=False, timeout=300)
        assert not check or done.returncode == 0, done.stderr[-4000:]
        return done

    try:
        run("up", "--no-build", "--pull=never", "--wait", "--wait-timeout=240", *SERVICES)
        yield ports
        run("stop", "litport-cpu")
        state = builder.engine.inspect(f"{PROJECT}-litport-cpu-1")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    finally:
        run("down", "--volumes", "--timeout=60")


def test_litport_answers_where_the_composition_says(ports: dict[str, int]) -> None:
    answer = httpx.get(f"http://127.0.0.1:{ports['API_PORT']}/ready", timeout=10)
    assert (answer.status_code, answer.json()["models"]) == (200, {"echo": "ready"})


@pytest.mark.parametrize(
    ("query", "value"), [('up{job="litport"}', 1.0), ('litport_model_state{model="echo",state="ready"}', 1.0)]
)
def test_prometheus_scrapes_it(ports: dict[str, int], query: str, value: float) -> None:
    wait_until(lambda: _values(ports["PROMETHEUS_PORT"], query) == [value], 60, every_s=1)


def test_prometheus_has_the_rules(ports: dict[str, int]) -> None:
    answer = httpx.get(f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}/api/v1/rules", timeout=10).json()
    assert answer["data"]["groups"]
    assert [
        rule["lastError"] for group in answer["data"]["groups"] for rule in group["rules"] if "lastError" in rule
    ] == []


def _values(port: int, query: str) -> list[float]:
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10).json()
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


def _have_prometheus(builder: Builder, image: str) -> None:
    if builder.arguments.get("PYTHON_IMAGE") == STAND_IN:
        builder.engine("build", "--quiet", f"--tag={image}", "-", stdin=PROMETHEUS, timeout_s=600)
    else:
        builder.engine("pull", "--quiet", image, timeout_s=600)
