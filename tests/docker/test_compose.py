"""The composition, as Docker Compose itself reads it: valid with every profile, and as safe as is said of it."""

import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.settings import Server
from tests.docker.queries import DOCKER

FILE = DOCKER / "compose.yaml"
PROFILES = ("cpu", "gpu", "monitoring", "edge", "bench")
CLUSTER = {"litport-cluster", "ray-head", "ray-node", "ray-store"}
COMBINATIONS = [chosen for count in range(len(PROFILES) + 1) for chosen in itertools.combinations(PROFILES, count)]
LITPORT = ("litport-cpu", "litport-gpu", "litport-cluster")
ONE_OFF = ("gpu-check", "bench")
# NVIDIA's image asks for root and SYS_ADMIN; docker/compose.yaml says so where it stands.
NOT_HARDENED = ("dcgm-exporter",)


def _compose() -> str | None:
    beside = Path(sys.executable).with_name("docker-compose")
    return str(beside) if beside.exists() else shutil.which("docker-compose")


COMPOSE = _compose()
WITH_COMPOSE = pytest.mark.skipif(COMPOSE is None, reason="NOT TESTED: the composition, as docker-compose is missing")
EVERY_SERVICE = list(yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"])


@functools.cache
def config(*profiles: str) -> dict[str, Any]:
    """The composition with these profiles, with every value filled in and no variable set."""
    assert COMPOSE is not None
    words = [COMPOSE, "-f", str(FILE), "--env-file", "/dev/null"]
    words += [word for profile in profiles for word in ("--profile", profile)]
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [*words, "config", "--format", "json"], capture_output=True, text=True, check=False, timeout=60, env=env
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = config(*PROFILES, "cluster")["services"][name]
    return found


@WITH_COMPOSE
@pytest.mark.parametrize("profiles", COMBINATIONS, ids="+".join)
def test_every_combination_of_profiles_is_valid(profiles: tuple[str, ...]) -> None:
    services = config(*profiles).get("services", {})
    assert ("litport-cpu" in services) == ("cpu" in profiles)
    assert ("litport-gpu" in services) == ("gpu-check" in services) == ("dcgm-exporter" in services)
    assert ("litport-gpu" in services) == ("gpu" in profiles)
    assert ("prometheus" in services) == ("grafana" in services) == ("monitoring" in profiles)
    assert ("edge" in services) == ("edge" in profiles)
    assert ("bench" in services) == ("bench" in profiles)


@WITH_COMPOSE
def test_a_benchmark_of_the_composition_can_be_run_again() -> None:
    words = service("bench")["command"]
    assert words[:3] == ["bench", "load", "http://litport:8000"]
    assert not [word for word in words if word.startswith("--out")], "a folder that has a result is refused"


@WITH_COMPOSE
def test_the_profile_cluster_is_a_front_door_and_a_ray_cluster_with_one_secret_and_one_token() -> None:
    services = config("cluster")["services"]
    assert services.keys() == CLUSTER
    head, node, gateway = (services[name] for name in ("ray-head", "ray-node", "litport-cluster"))
    assert node["deploy"]["replicas"] == 2
    assert head["command"][:3] == ["ray", "start", "--head"]
    assert node["command"][:4] == ["ray", "start", "--address", "ray-head:6379"]
    for container in (head, node):
        assert container["command"][container["command"].index("--token-file") + 1] == "/run/secrets/ray_token"
        assert "ports" not in container
    for container in (head, node, gateway):
        environment = container["environment"]
        assert environment["LITPORT_CLUSTER__SECRET_FILE"] == "/run/secrets/cluster_secret"
        assert environment["LITPORT_CLUSTER__TOKEN_FILE"] == "/run/secrets/ray_token"
    assert head["environment"]["RAY_REDIS_ADDRESS"] == "ray-store:6379"


@WITH_COMPOSE
@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_only_the_edge_is_reached_from_other_machines(name: str) -> None:
    addresses = {port.get("host_ip") for port in service(name).get("ports", [])}
    assert addresses == {None} if name == "edge" else addresses <= {"127.0.0.1"}
    assert 9464 not in {port["target"] for port in service(name).get("ports", [])}


@WITH_COMPOSE
@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    found = service(name)
    assert not found.get("privileged")
    assert "docker.sock" not in json.dumps(found)
    for mount in found.get("volumes", []):
        assert mount["type"] == "volume" or mount.get("read_only"), mount
    if name not in NOT_HARDENED:
        assert found["read_only"] is True
        assert found["cap_drop"] == ["ALL"]
        assert "cap_add" not in found
        assert found["security_opt"] == ["no-new-privileges:true"]


@WITH_COMPOSE
@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_nothing_grows_without_bound(name: str) -> None:
    found = service(name)
    limits = found["deploy"]["resources"]["limits"]
    assert int(limits["memory"]) > 0
    assert limits["pids"] > 0
    assert found["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}


@WITH_COMPOSE
@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_what_ends_is_started_again_whatever_its_exit_status_but_for_what_is_to_end(name: str) -> None:
    assert service(name)["restart"] == ("no" if name in ONE_OFF else "unless-stopped")


@WITH_COMPOSE
@pytest.mark.parametrize("name", LITPORT)
def test_litport_is_given_the_time_that_it_takes_to_stop(name: str) -> None:
    engines_end_s = 10  # servers/models/supervisor.py
    grace = re.fullmatch(r"(\d+)s", service(name)["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) > Server().drain_timeout_s + engines_end_s


@WITH_COMPOSE
@pytest.mark.parametrize("name", LITPORT)
def test_litport_is_open_without_keys_only_because_it_is_published_on_loopback(name: str) -> None:
    found = service(name)
    assert found["environment"]["LITPORT_AUTH__OPEN_TO_NETWORK"] == "true"
    assert [(port["host_ip"], port["target"]) for port in found["ports"]] == [("127.0.0.1", 8000)]
    assert service("edge")["entrypoint"] == ["/etc/nginx/edge/require_keys.sh", "http://litport:8000"]
    assert found["networks"]["default"]["aliases"] == ["litport"]


@WITH_COMPOSE
def test_the_start_order_waits_for_health() -> None:
    before = {
        "litport-gpu": {"gpu-check": "service_completed_successfully"},
        "edge": dict.fromkeys(LITPORT, "service_healthy"),
        "bench": dict.fromkeys(LITPORT, "service_healthy"),
        "grafana": {"prometheus": "service_healthy"},
        "litport-cluster": {"ray-head": "service_started"},
        "ray-head": {"ray-store": "service_started"},
        "ray-node": {"ray-head": "service_started"},
    }
    for name in EVERY_SERVICE:
        waits_for = service(name).get("depends_on", {})
        assert {other: wait["condition"] for other, wait in waits_for.items()} == before.get(name, {}), name
    for name in ("prometheus", "grafana", "edge"):
        assert service(name)["healthcheck"]["test"][0] == "CMD"


@WITH_COMPOSE
def test_the_gpu_is_reserved_as_docker_documents_it_and_looked_for_before_anything_is_pulled() -> None:
    reserved = [{"driver": "nvidia", "count": -1, "capabilities": ["gpu"]}]
    for name in ("litport-gpu", "gpu-check", "dcgm-exporter"):
        assert service(name)["deploy"]["resources"]["reservations"]["devices"] == reserved
    assert "torch.cuda.is_available()" in service("gpu-check")["command"][0]
    assert service("gpu-check")["image"] == service("litport-gpu")["image"] == "litport:cuda"
    assert "devices" not in json.dumps(service("litport-cpu"))


@WITH_COMPOSE
@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_an_image_is_ours_or_of_one_version(name: str) -> None:
    image = service(name)["image"]
    assert image in ("litport:cpu", "litport:cuda", "litport:cpu-ray") or re.search(r":v?\d+\.\d+\.\d+(-|$)", image), (
        image
    )


@WITH_COMPOSE
def test_the_files_that_are_mounted_are_there() -> None:
    for name in EVERY_SERVICE:
        for mount in service(name).get("volumes", []):
            assert mount["type"] == "volume" or Path(mount["source"]).exists(), mount


def test_the_example_names_every_variable_with_its_default() -> None:
    used: dict[str, set[str]] = {}
    for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", FILE.read_text(encoding="utf-8")):
        used.setdefault(name, set()).add(default)
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    told = dict(re.findall(r"^#?(\w+)=(.*)$", example, re.MULTILINE))
    own = {name for name in told if not name.startswith(("LITPORT_", "COMPOSE_"))}
    assert own == used.keys()
    assert [name for name in own if told[name] not in used[name]] == []
    assert "$" not in re.sub(r"\$\{\w+:-[^}]*\}", "", FILE.read_text(encoding="utf-8"))


@WITH_COMPOSE
def test_the_example_is_read_by_compose_and_its_settings_reach_litport(tmp_path: Path) -> None:
    assert COMPOSE is not None
    shutil.copy(FILE, tmp_path)
    text = (DOCKER / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(re.sub(r"^#(\w+=)", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    words = [COMPOSE, "-f", str(tmp_path / FILE.name), "config", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (name, litport), *others = json.loads(done.stdout)["services"].items()
    assert (name, others) == ("litport-cpu", [])  # COMPOSE_PROFILES=cpu
    assert litport["environment"]["LITPORT_TELEMETRY__LOG_FORMAT"] == "json"


@WITH_COMPOSE
def test_the_command_that_stops_a_machines_containers_names_all_of_them() -> None:
    assert COMPOSE is not None
    document = (DOCKER.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    commands = re.findall(r"spot\.sh aws docker compose (.*) stop", document)
    assert len(commands) == 2
    for command in commands:
        words = [COMPOSE, *shlex.split(command), "config", "--services"]
        done = subprocess.run(words, cwd=DOCKER.parent, capture_output=True, text=True, check=True, timeout=60)
        assert {*done.stdout.split()} == {*EVERY_SERVICE}


@WITH_COMPOSE
def test_prometheus_and_grafana_find_what_they_need() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "compose.yml").read_text(encoding="utf-8"))
    beside = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for part in ("global", "rule_files"):
        assert scraped[part] == beside[part]
    jobs = {job["job_name"]: job for job in scraped["scrape_configs"]}
    assert jobs["litport"]["static_configs"] == [{"targets": ["litport:9464"]}]
    assert {job["job_name"] for job in beside["scrape_configs"]} <= jobs.keys()
    assert "--config.file=/etc/prometheus/compose.yml" in service("prometheus")["command"]
    assert service("grafana")["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
    targets = {mount["target"] for mount in service("grafana")["volumes"]}
    assert {"/etc/grafana/provisioning", "/etc/grafana/dashboards"} <= targets


@pytest.mark.skipif(shutil.which("promtool") is None, reason="NOT TESTED: compose.yml, as promtool is missing")
def test_prometheus_accepts_what_it_scrapes_here() -> None:
    words = ["promtool", "check", "config", str(DOCKER / "prometheus" / "compose.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_secrets_are_kept_out_of_the_repository() -> None:
    for folder in (DOCKER / "secrets", DOCKER / "edge" / "tls"):
        assert (folder / ".gitignore").read_text(encoding="utf-8").split() == ["*", "!.gitignore"]
    assert "/.env" in (DOCKER / ".gitignore").read_text(encoding="utf-8").split()
