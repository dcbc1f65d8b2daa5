"""What both engines tell their children of traces."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.settings import LitServeModel, VllmModel
from servers.engines.base import Command
from servers.engines.litserve.engine import LitServeEngine
from servers.engines.vllm.engine import VllmEngine

COLLECTOR = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def _collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", COLLECTOR)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")


def _vllm(**settings: object) -> Command:
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/name", **settings})
    return VllmEngine("chat", model).command(Path("/models/x"), Path("/run/0.sock"))


def _endpoints(command: Command) -> list[str]:
    return [word.partition("=")[2] for word in command.argv if word.startswith("--otlp-traces-endpoint")]


def _litserve(folder: Path, env: Mapping[str, str]) -> tuple[Command, bool]:
    model = LitServeModel.model_validate({"engine": "litserve", "api": "echo", "env": env})
    command = LitServeEngine("echo", model, folder / "card.json", "warning").command(None, folder / "0.sock")
    return command, json.loads((folder / "0.json").read_text())["traces"]


def test_vllm_sends_its_traces_where_ours_go() -> None:
    command = _vllm()
    assert _endpoints(command) == [f"{COLLECTOR}/v1/traces"]
    assert command.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert command.environ["OTEL_RESOURCE_ATTRIBUTES"] == "litport.model=chat"
    assert command.environ["OTEL_SERVICE_NAME"] == "litport"


def test_vllm_keeps_the_endpoint_that_its_args_name() -> None:
    assert _endpoints(_vllm(args={"otlp_traces_endpoint": "http://other:4317"})) == ["http://other:4317"]


def test_one_models_traces_can_be_turned_off_in_its_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", COLLECTOR)
    off = {"OTEL_TRACES_EXPORTER": "none"}
    command = _vllm(env=off)
    assert _endpoints(command) == []
    assert command.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "", "which vLLM's engine would follow alone"
    assert _litserve(tmp_path, off)[1] is False


def test_litserve_is_told_and_keeps_what_its_env_adds(tmp_path: Path) -> None:
    command, traces = _litserve(tmp_path, {"OTEL_RESOURCE_ATTRIBUTES": "team=a", "OTEL_SERVICE_NAME": "mine"})
    assert traces
    assert command.environ["OTEL_RESOURCE_ATTRIBUTES"] == "team=a,litport.model=echo"
    assert command.environ["OTEL_SERVICE_NAME"] == "mine"


def test_without_a_collector_children_get_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    command, traces = _litserve(tmp_path, {})
    assert not traces
    assert not [name for name in {**command.environ, **_vllm().environ} if name.startswith("OTEL_")]
    assert _endpoints(_vllm()) == []
