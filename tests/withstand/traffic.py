"""Mixed traffic: what well-meant, mistaken and hasty clients send to a platform, from several threads.

What it sends follows from what `GET /status` says is served, so the same traffic meets any recipe. Every request ends
in an `Outcome`, also one that is never answered: nothing is retried, and no failure passes for a success.
"""

import http.client
import io
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

HUNG = "hung"
LEFT = "left"
# A connection that is kept for ever hides what opening and closing costs.
_REQUESTS_PER_CLIENT = 50
_TOO_MANY_BYTES = 10**12
_MESSAGES = [{"role": "user", "content": "Tell me of the sea."}]


@dataclass(frozen=True)
class Work:
    """One kind of request. `model` is None where none has to do anything for it.

    With `leaves_after_s` the client goes away then, unless it has its answer.
    """

    name: str
    model: str | None
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    expected: int = 200
    leaves_after_s: float | None = None
    declared_bytes: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a request ended. `how` is the status, and what was wrong with the rest, if anything was."""

    work: str
    model: str | None
    begin_s: float
    end_s: float
    how: str
    as_expected: bool


def works(models: Mapping[str, Mapping[str, Any]]) -> list[Work]:
    """The traffic for the models of a status, each of them ready; and what is wrong with any model."""
    found = [work for name, model in models.items() for path in model["paths"] for work in _for_path(name, model, path)]
    if not found:
        raise ValueError(f"expected a model with a chat, an embedding or a prediction, got {sorted(models)}")
    path = found[0].path
    json_type = {"content-type": "application/json"}
    return [
        *found,
        Work("invalid JSON", None, "/v1/chat/completions", {"content": b'{"model": ', "headers": json_type}, 400),
        Work("unknown model", None, "/v1/chat/completions", {"json": {"model": "nobody", "messages": _MESSAGES}}, 404),
        Work("unknown route", None, "/v2/nothing", {"json": {}}, 404),
        Work("too large", None, path, expected=413, declared_bytes=_TOO_MANY_BYTES),
    ]


def _for_path(name: str, model: Mapping[str, Any], path: str) -> list[Work]:
    if path == "/v1/chat/completions":
        chat = {"model": name, "messages": _MESSAGES, "max_tokens": 24}
        return [
            Work(f"{name}: chat", name, path, {"json": chat}),
            Work(f"{name}: stream", name, path, {"json": {**chat, "stream": True}}),
            Work(f"{name}: left", name, path, {"json": {**chat, "stream": True, "max_tokens": 500}}, leaves_after_s=1),
        ]
    if path == "/v1/embeddings":
        texts = ["a cat", "the same words again and again " * 8]
        return [Work(f"{name}: embedding", name, path, {"json": {"model": name, "input": texts}})]
    if model["paths"] == [path]:  # a prediction; a model with OpenAI's routes takes their bodies there
        if str(model["source"]).startswith("efficientnet"):
            body: dict[str, Any] = {"files": {"image": ("noise.png", _picture(), "image/png")}}
        else:  # what the strangers among the tests' services take: each looks at what it knows
            body = {"json": {"input": 0.1, "from": 5, "pause_s": 0.02}}
        return [
            Work(f"{name}: prediction", name, path, body),
            Work(f"{name}: left", name, path, body, leaves_after_s=0.02),
        ]
    return []


def _picture() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


class Load:
    """Client threads that ask one thing after another, in an order that the seed decides, until `stop`."""

    def __init__(
        self,
        url: str,
        works: list[Work],
        on_outcome: Callable[[Outcome], None],
        *,
        clients: int,
        seed: int = 0,
        pause_s: float = 0,
        limit_s: float = 60,
    ) -> None:
        self._url = url
        self._works = works
        self._on_outcome = on_outcome
        self._pause_s = pause_s
        self._limit_s = limit_s
        self._stopping = threading.Event()
        self._problems: list[Exception] = []
        seeds = random.Random(seed)
        self._threads = [
            threading.Thread(target=self._run, args=(seeds.randrange(2**32),), daemon=True) for _ in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the requests in hand. Raises what a client of ours stumbled over itself, if one did."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self._problems:
            raise self._problems[0]

    def _run(self, seed: int) -> None:
        dice = random.Random(seed)
        try:
            while not self._stopping.is_set():
                with httpx.Client(base_url=self._url) as client:
                    for _ in range(_REQUESTS_PER_CLIENT):
                        if self._stopping.wait(self._pause_s):
                            return
                        self._on_outcome(ask(client, dice.choice(self._works), self._limit_s))
        except Exception as problem:  # told by stop(): a thread cannot raise
            self._problems.append(problem)


def ask(client: httpx.Client, work: Work, limit_s: float) -> Outcome:
    """Send one request and see it to its end, or to `limit_s`, after which it counts as hung."""
    begin_s = time.monotonic()
    how = _declare(client, work, limit_s) if work.declared_bytes else _send(client, work, limit_s)
    as_expected = how == str(work.expected) or (how == LEFT and work.leaves_after_s is not None)
    return Outcome(work.name, work.model, begin_s, time.monotonic(), how, as_expected)


def _send(client: httpx.Client, work: Work, limit_s: float) -> str:
    patience_s, ending = (limit_s, HUNG) if work.leaves_after_s is None else (work.leaves_after_s, LEFT)
    deadline = time.monotonic() + patience_s
    status: int | None = None
    end = b""
    try:
        with client.stream("POST", work.path, timeout=patience_s, **work.body) as answer:
            status = answer.status_code
            for chunk in answer.iter_raw():
                end = (end + chunk)[-4096:]
                if time.monotonic() > deadline:
                    return ending
    except httpx.TimeoutException:
        return ending
    except httpx.TransportError as problem:
        return f"{status} broken" if status else f"no answer: {type(problem).__name__}"
    return f"{status} error event" if status == 200 and b'data: {"error":' in end else str(status)


def _declare(client: httpx.Client, work: Work, limit_s: float) -> str:
    """Announce a body and send none of it, which httpx would not do."""
    address = urlsplit(str(client.base_url))
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=limit_s)
    try:
        connection.putrequest("POST", work.path)
        connection.putheader("Content-Length", str(work.declared_bytes))
        connection.putheader("Content-Type", "application/json")
        connection.endheaders()
        return str(connection.getresponse().status)
    except TimeoutError:
        return HUNG
    except (OSError, http.client.HTTPException) as problem:
        return f"no answer: {type(problem).__name__}"
    finally:
        connection.close()
