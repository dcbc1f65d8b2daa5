"""vLLM's sleep: an idle server gives back the memory of its GPUs, and its processes stay.

At level 1 the weights go into the host's memory, and at level 2 they are dropped, to be read from their files again;
the KV cache is dropped at both. The routes are vLLM's for development, and are never on the port. vLLM 0.32 answers 200
to a further level while it sleeps, and stays where it is, so it is woken as far as its weights in between. It answers
200 as well where the weights were not read again: so its log-probabilities of a text are noted before the first sleep,
and compared after each. Not run on a GPU.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from configs.settings import VllmModel
from servers.engines.base import CanaryError, Card, post
from servers.engines.connection import Connection

_OPTION = "enable-sleep-mode"
_EXTENSION = "worker-extension-cls"
_OPTIONS: Mapping[str, Any] = {
    _OPTION: True,
    _EXTENSION: "servers.engines.vllm.child.host_memory.HostMemory",
    "sleep-preserve-parameter-names": ["draft.*"],  # a drafting model's weights are not read again
    "log-error-stack": False,  # on in the development mode; its lines have whole bodies of requests
}
ENVIRON = {"VLLM_SERVER_DEV_MODE": "1"}
"""Has the routes."""
_TEXT = "One, two, three, four, five, six, seven, eight, nine, ten"
# Of two vectors, relative to the length of the first: 0.02 is a cosine of 0.9998. Equal weights differ by rounding.
_MAX_DISTANCE = 0.02


def levels(settings: VllmModel) -> Sequence[int]:
    """The levels of an idle model on a GPU; none for one that is never unloaded by itself, or has another extension."""
    is_unloaded = settings.load == "on_demand" or settings.idle_unload_s is not None
    is_open = settings.args.get(_OPTION, True) and _EXTENSION not in settings.args
    return settings.sleep_levels if is_unloaded and is_open else []


def options(settings: VllmModel) -> Mapping[str, Any]:
    """The options of a server that can sleep; none for one that need not."""
    return _OPTIONS if levels(settings) else {}


async def begin(connection: Connection, level: int, before: int) -> None:
    """Let vLLM sleep at this level, from the level `before`. Raises CanaryError, CONNECTION_LOST."""
    if before:
        await post(connection, "/wake_up", {}, query="tags=weights")
        await _release_host_memory(connection)
    await post(connection, "/sleep", {}, query=f"level={level}&mode=wait")


async def end(connection: Connection, level: int) -> None:
    """Let vLLM serve again after a sleep at this level. Raises CanaryError, CONNECTION_LOST."""
    if level > 1:
        await post(connection, "/wake_up", {}, query="tags=weights")
        await post(connection, "/collective_rpc", {"method": "reload_weights"})
    answer = msgspec.json.decode(await post(connection, "/wake_up", {}, query="tags=kv_cache" if level > 1 else ""))
    if answer.get("status") != "awake":
        raise CanaryError(f"POST /wake_up was answered {answer}")
    await _release_host_memory(connection)


async def _release_host_memory(connection: Connection) -> None:
    await post(connection, "/collective_rpc", {"method": "release_host_memory"})


async def sample(connection: Connection, card: Card) -> Sequence[float]:
    """Numbers that depend on all weights; none for a model that neither generates nor embeds. Raises as `post`."""
    if "/v1/completions" in card.routes:
        request = {"prompt": _TEXT, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 0}
        answer = msgspec.json.decode(await post(connection, "/v1/completions", request))
        return [value for value in answer["choices"][0]["logprobs"]["token_logprobs"] if value is not None]
    if "/v1/embeddings" in card.routes:
        answer = msgspec.json.decode(await post(connection, "/v1/embeddings", {"input": _TEXT}))
        return list(answer["data"][0]["embedding"])
    return []


def check(before: Sequence[float], after: Sequence[float]) -> None:
    """Raise CanaryError where a model that has slept does not compute as before."""
    distance = math.dist(before, after) if len(before) == len(after) else math.inf
    if not distance <= _MAX_DISTANCE * math.hypot(*before):
        raise CanaryError(f"it computes otherwise than before it slept: a distance of {distance:.3g}")
