"""One model behind short limits, for clients on raw connections."""

from collections.abc import Iterator

import pytest

from tests.services.front_door import Door, open_door
from tests.services.tiny_engine import TinyEngine

LIMITS = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, "write_timeout_s": 0.3, "max_body_bytes": 100_000}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One model behind short limits."""
    with open_door(tmp_path_factory.mktemp("door"), TinyEngine("one"), limits=LIMITS) as door:
        yield door
