"""Loading settings with nothing of the machine's own: no variables, no /run/secrets."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs import sources
from configs.loading import LoadedSettings, load

Load = Callable[..., LoadedSettings]

RECIPE = """\
models:
  smollm2-135m-instruct:
    engine: vllm
    source: smollm2-135m-instruct
    args:
      max-model-len: 4096
  org/v1.5-mini:
    engine: litserve
    api: echo
"""


@pytest.fixture(autouse=True)
def _no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "DOCKER_SECRETS", tmp_path / "no-secrets")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with a vLLM model and a LitServe model whose name has a slash, a dot and a dash."""
    path = tmp_path / "two.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def load_two(recipe: Path, tmp_path: Path) -> Load:
    """Load that recipe and whatever else a test gives."""

    def loaded(
        *overrides: str,
        more: str | None = None,
        environ: Mapping[str, str] | None = None,
        models: Mapping[str, Mapping[str, Any]] | None = None,
        recipes: Sequence[Path] = (),
    ) -> LoadedSettings:
        if more is not None:
            later = tmp_path / "later.yaml"
            later.write_text(more, encoding="utf-8")
            recipes = [*recipes, later]
        return load([recipe, *recipes], overrides, models, environ or {})

    return loaded
