"""vLLM that sleeps and wakes by its own routes.

Its CPU build frees no memory by it, but goes through all else: it stops, drops its caches, reads its weights again and
goes on. Not run on a GPU.
"""

import asyncio
import json
from pathlib import Path

import pytest

from configs.settings import VllmModel
from servers.engines.base import post
from servers.engines.vllm import engine as vllm
from servers.engines.vllm import sleep as vllm_sleep
from servers.engines.vllm.engine import VllmEngine
from servers.gateway.routes import openai
from servers.models import sleep
from servers.models.instance import State
from servers.models.model import Model
from servers.models.start import StartError
from servers.store import Store
from tests.services.supervision import group_of, supervising, wait_until_state

BASE = "smollm2-135m-instruct"


@pytest.mark.long
def test_it_answers_as_before_after_each_level_and_another_model_in_its_place_is_told(
    model_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    options = {name: value for name, value in vllm_sleep._OPTIONS.items() if name != "enable-sleep-mode"}
    monkeypatch.setattr(vllm_sleep, "options", lambda _: options)  # the CPU build refuses that one
    base = Store(model_cache).pull(BASE)
    args = {"dtype": "float32", "max-model-len": 256, "kv-cache-memory-bytes": 2**28, "enforce-eager": True}
    settings = {"source": str(base), "load": "on_demand", "canary_interval_s": 0.2}
    engine = VllmEngine(
        "base", VllmModel.model_validate({"engine": "vllm", "args": args, **settings}), paths=openai.PATHS
    )

    async def complete(model: Model) -> list[int]:
        connection = model.choose().connection
        assert connection is not None
        body = {"max_tokens": 16, "temperature": 0, "return_token_ids": True, "prompt": "The capital of France is"}
        answer: list[int] = json.loads(await post(connection, "/v1/completions", body))["choices"][0]["token_ids"]
        return answer

    async def run() -> None:
        async with supervising(tmp_path, engine, **settings) as supervisor:
            model = supervisor.models["base"]
            supervisor.begin(model)
            await wait_until_state(model, State.READY, timeout_s=240)
            group, tokens = group_of(model), await complete(model)
            for levels in ([1], [2], [1, 2]):
                for level in levels:
                    assert level in sleep.next_levels(model)
                    await sleep.put_to_sleep(model, level, supervisor.move)
                await asyncio.sleep(1)  # canaries would hang now
                assert model.state is State.ASLEEP
                await sleep.wake(model, supervisor.move)
                assert (model.state, await complete(model)) == (State.READY, tokens)
            assert group_of(model) == group
            connection = model.choose().connection
            assert connection is not None
            connection.sample = [value - 1 for value in connection.sample]  # type: ignore[attr-defined]
            await sleep.put_to_sleep(model, 2, supervisor.move)
            with pytest.raises(StartError, match="computes otherwise than before it slept"):
                await sleep.wake(model, supervisor.move)
            assert model.choose().canaries["failed"] == 0

    asyncio.run(run())
