"""Instances without a process, for tests of what is asked of one: what it answers is a function of the request."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from servers.engines.base import Card
from servers.engines.connection import Reply
from servers.models.instance import Instance, State

Answering = Callable[[str, bytes], Any]
"""From the path and the body to the JSON of the answer."""


class Answers:
    """A connection to a process that answers so."""

    restarts = 0
    is_complete = True

    def __init__(self, answer: Answering) -> None:
        self._answer = answer

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        """See `Connection`."""
        return Reply.whole(200, [], json.dumps(self._answer(path, body)).encode())

    async def close(self) -> None:
        """See `Connection`."""


def answering(answer: Answering) -> Instance:
    """An instance that is ready and answers so."""
    instance = Instance(Path("none.sock"), Path("none.log"), state=State.READY)
    instance.connection, instance.card = Answers(answer), Card(frozenset(), "/predict")
    return instance
