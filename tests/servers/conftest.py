"""LitServe children that several tests of a module use."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.servers.engines.litserve.child import Child, running

Serve = Callable[..., Child]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start a child, or return the one that runs already with the same settings; all end with the module."""
    started: dict[str, Child] = {}
    with ExitStack() as stack:

        def start(**spec: Any) -> Child:
            key = repr(sorted(spec.items()))
            if key not in started:
                started[key] = stack.enter_context(running(tmp_path_factory.mktemp("child"), **spec))
            return started[key]

        yield start
