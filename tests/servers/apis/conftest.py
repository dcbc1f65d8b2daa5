"""Models for the tests of the APIs: real ones, and tiny ones made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from servers.store import Store
from tests.servers.apis import tiny


@pytest.fixture(scope="session")
def model_folder(model_cache: Path) -> Callable[[str], Path]:
    """The folder of a catalog model, pulled once into a cache that outlives the run."""
    return Store(model_cache).pull


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.language_model(tmp_path_factory.mktemp("tiny-lm"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.text_classifier(tmp_path_factory.mktemp("tiny-classifier"))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.picture_classifier(tmp_path_factory.mktemp("tiny-vit"))
