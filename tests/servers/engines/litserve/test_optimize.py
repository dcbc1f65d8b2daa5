"""`litport models optimize`: what it prepares, the start takes."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.errors import UserError
from configs.settings import LitportSettings, LitServeModel
from servers.engines.registry import optimize
from tests.conftest import LITPORT, serving

PLUGIN = """import litserve as ls
import torch

class ScoreAPI(ls.LitAPI):
    example_request = {"numbers": [0.5] * 16}

    def setup(self, device):
        torch.manual_seed(0)
        layers = torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)
        self.model = torch.nn.Sequential(*layers).eval()

    def export_modules(self):
        return [(self.model, {"input": torch.rand(2, 16)})]

    def decode_request(self, request):
        return torch.tensor([request["numbers"]])

    def predict(self, x):
        with torch.inference_mode():
            return self.model(x)[0].tolist()

class PlainAPI(ls.LitAPI):
    pass
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "scores.py").write_text(PLUGIN)
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"server: {{cache_dir: {tmp_path}/cache}}\n"
        "models: {scores: {engine: litserve, api: ./scores.py:ScoreAPI, runtime: auto, max_batch_size: 4}}\n"
    )
    return file


@pytest.mark.long
def test_what_auto_has_measured_ahead_of_the_start_is_in_the_status(recipe: Path, tmp_path: Path) -> None:
    command = [*LITPORT, "models", "optimize", "scores", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    choice, place = done.stdout.splitlines()
    assert "auto took " in choice
    assert "1 at a time: eager " in choice
    assert "4 at a time: eager " in choice
    assert place == f"kept in {tmp_path}/cache/exports/scores"
    (record,) = (tmp_path / "cache" / "exports" / "scores").glob("auto-*.json")
    kept = record.read_bytes()
    with serving(tmp_path, str(recipe)) as platform:
        status: dict[str, Any] = platform.status()
        answer = httpx.post(f"{platform.url}/predict/scores", json={"numbers": [0.5] * 16}, timeout=60)
        assert len(answer.json()) == 3
    assert choice.removeprefix("scores: ") in status["scores"]["detail"]
    assert status["scores"]["equality"]["runtime"] in ("eager", "onnxruntime", "openvino")
    assert record.read_bytes() == kept


def test_only_a_model_with_a_runtime_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "scores.py").write_text(PLUGIN)
    model = LitServeModel(engine="litserve", api=f"{tmp_path}/scores.py:PlainAPI")
    settings = LitportSettings(models={"plain": model})
    with pytest.raises(UserError, match=r"expected a model that can be prepared \(plain\), got score"):
        optimize(settings, "score", "auto", None)
    with pytest.raises(UserError, match=r"models\.plain\.runtime: expected eager: api .* has no export_modules\(\)"):
        optimize(settings, "plain", "auto", None)
    with pytest.raises(UserError, match=r"models\.plain: engine litserve takes --precision .*, got int8"):
        optimize(settings, "plain", None, "int8")
