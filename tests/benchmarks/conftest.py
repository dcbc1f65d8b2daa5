"""The layered server: one process for all tests of the harness, each of which sets its own times."""

from collections.abc import Iterator

import pytest

from tests.benchmarks.layers import Layered, layered_rung, layered_server


@pytest.fixture(scope="session")
def layered_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    with layered_server(tmp_path_factory.mktemp("layered")) as url:
        yield url


@pytest.fixture
def layered(layered_url: str) -> Layered:
    """Sets its times and returns it as a rung."""
    return lambda **times: layered_rung(layered_url, times)
