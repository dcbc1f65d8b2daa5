"""The composition with monitoring comes up on a real engine, and Prometheus scrapes Litport in it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.containers.bases import STAND_IN
from tests.containers.conftest import Builder
from tests.containers.project import image_of, project, provide
from tests.services.polling import wait_until
from tests.services.ports import free_port

pytestmark = pytest.mark.long

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
    ports = {name: free_port() for name in ("API_PORT", "PROMETHEUS_PORT")}
    variables = {"RECIPE": "echo.yaml", **{name: str(port) for name, port in ports.items()}}
    with project(builder, "litport-tests", ("cpu", "monitoring"), variables) as run:
        assert image_of("litport-cpu") == image
        provide(builder, "prometheus", PROMETHEUS)
        run("up", "--no-build", "--pull=never", "--wait", "--wait-timeout=240", *SERVICES)
        yield ports
        run("stop", "litport-cpu")
        state = builder.engine.inspect(f"{run.name}-litport-cpu-1")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)


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
