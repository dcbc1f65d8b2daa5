"""A platform whose models compute in bfloat16: one is proved equal, one is not and falls back, one is not and fails."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import serving
from tests.servers.apis import tiny
from tests.services.page_reader import metrics_url, values


@pytest.mark.long
def test_only_what_is_proved_equal_serves_and_the_figures_are_in_status_and_metrics(tmp_path: Path) -> None:
    folder = tiny.text_classifier(tmp_path / "model")
    model = {"engine": "litserve", "api": "embedding", "source": str(folder), "precision": "bfloat16"}
    unreachable = {**model, "accept": {"cosine": 1}, "required": False}  # by rounding alone
    recipe = tmp_path / "recipe.yaml"
    models = {"proved": model, "eager": {**unreachable, "on_failed_proof": "eager"}, "refused": unreachable}
    recipe.write_text(yaml.safe_dump({"models": models}))
    with serving(tmp_path, str(recipe)) as platform:
        platform.wait_for("refused", timeout_s=120, state="failed")
        status: dict[str, Any] = platform.status()
        page = values(httpx.get(metrics_url(platform)).text)
        for name in ("proved", "eager"):
            answer = httpx.post(f"{platform.url}/v1/embeddings", json={"model": name, "input": "a"}, timeout=60)
            assert len(answer.json()["data"][0]["embedding"]) == 32
    assert status["refused"]["equality"] is None
    assert "12 inputs: cosine 0.99" in status["refused"]["detail"]
    for name, precision in (("proved", "bfloat16"), ("eager", "float32")):
        proof = status[name]["equality"]
        assert (proof["variant"], proof["precision"], proof["inputs"], proof["top1"]) == (
            "bfloat16",
            precision,
            12,
            None,
        )
        assert "12 inputs: cosine 0.99" in status[name]["detail"]
        labels = f"[('figure', 'cosine'), ('model', '{name}'), ('precision', '{precision}'), ('variant', 'bfloat16')]"
        assert page[f"litport_model_equality{labels}"] == pytest.approx(proof["cosine"])
