"""One platform for the tests of the document and its page: small models of every kind of LitServe's, no vLLM."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Platform, serving


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Platform]:
    """Vectors, pictures, the echo, and strangers: one that says what it takes, one that does not, one that streams."""
    with serving(
        tmp_path_factory.mktemp("small"),
        "configs/recipes/echo.yaml",
        "all-minilm-l6-v2",
        "efficientnet-lite0",
        "tests/services/strangers/squares.py:SquaresAPI",
        "tests/services/strangers/dies.py:DiesAPI",
        "tests/services/strangers/streams.py:CountdownAPI",
        "--models.dies.example",
        '{"input": 1}',
        "--models.streams.stream",
        "true",
        "--models.streams.example",
        '{"from": 3}',
        "--server.cache_dir",
        str(model_cache),
        timeout_s=120,
    ) as platform:
        yield platform
