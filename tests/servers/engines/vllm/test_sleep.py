"""When vLLM is told to sleep, and what it must answer afterwards; the real one is in tests/end_to_end."""

from pathlib import Path
from typing import Any

import pytest

from configs.settings import VllmModel
from servers.engines.base import CanaryError
from servers.engines.vllm import engine as vllm
from servers.engines.vllm import sleep
from servers.engines.vllm.engine import VllmEngine
from tests.services.lora import write_model


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        ({}, []),  # it is never unloaded by itself
        ({"idle_unload_s": 600}, [1, 2]),
        ({"load": "on_demand"}, [1, 2]),
        ({"load": "on_demand", "sleep_levels": [2]}, [2]),
        ({"load": "on_demand", "sleep_levels": []}, []),
        ({"load": "on_demand", "args": {"enable-sleep-mode": False}}, []),
    ],
)
def test_it_can_sleep_on_a_gpu_where_it_may_be_unloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], levels: list[int]
) -> None:
    model = VllmModel.model_validate({"engine": "vllm", "source": "org/base", **settings})
    engine = VllmEngine("chat", model, cache_dir=tmp_path)
    assert engine.sleep_levels == [], "the CPU build frees nothing"
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    command = engine.command(write_model(tmp_path / "base"), tmp_path / "s.sock")
    assert engine.sleep_levels == levels
    assert ("--enable-sleep-mode" in command.argv) is bool(levels)
    assert command.environ.get("VLLM_SERVER_DEV_MODE") == ("1" if levels else None)


@pytest.mark.parametrize("after", [[-1.0, -2.0, -3.2], [-1.0, -2.0], [float("nan")] * 3])
def test_other_weights_than_before_are_told(after: list[float]) -> None:
    sleep.check([-1.0, -2.0, -3.0], [-1.0, -2.0, -3.01])
    sleep.check([], [])
    with pytest.raises(CanaryError, match="computes otherwise"):
        sleep.check([-1.0, -2.0, -3.0], after)
