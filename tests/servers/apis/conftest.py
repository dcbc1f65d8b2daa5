"""What the tests of the APIs share: real models, tiny ones made on the spot, and children that several tests use."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from servers.store import Store
from tests.servers.apis import tiny
from tests.servers.engines.litserve.child import REPOSITORY, Child, running

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; as in the children

Serve = Callable[..., Child]


@pytest.fixture(scope="session")
def model_folder() -> Callable[[str], Path]:
    """The folder of a catalog model, pulled once into a cache that outlives the run."""
    cache = Path(os.environ.get("LITPORT_TEST_CACHE") or REPOSITORY / ".cache" / "test-models")
    return Store(cache).pull


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start a child, or give the one that runs already with the same settings; all end with the module."""
    started: dict[str, Child] = {}
    with ExitStack() as stack:

        def start(**spec: Any) -> Child:
            key = repr(sorted(spec.items()))
            if key not in started:
                started[key] = stack.enter_context(running(tmp_path_factory.mktemp("child"), **spec))
            return started[key]

        yield start


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.language_model(tmp_path_factory.mktemp("tiny-lm"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.text_classifier(tmp_path_factory.mktemp("tiny-classifier"))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.picture_classifier(tmp_path_factory.mktemp("tiny-vit"))
