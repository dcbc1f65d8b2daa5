"""Adapters that peft makes for the catalog's model, merged and served on demand: they answer as peft's own."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.settings import VllmModel
from servers.engines.base import post
from servers.engines.vllm import engine as vllm
from servers.engines.vllm.engine import VllmEngine
from servers.gateway.routes import openai
from servers.models.instance import State
from servers.models.loader import Loader
from servers.models.model import Model
from servers.models.roster import Roster
from servers.store import Store, sources
from tests.conftest import litport, serving
from tests.servers.gateway.keyrings import keys_file
from tests.services.supervision import group_of, supervising, wait_until_state

BASE = "smollm2-135m-instruct"
PROMPTS = ("The capital of France is", "Once upon a time", "2 + 2 =")
TOKENS = 16
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "one": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "two": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"k_proj": 2}},
}


@dataclass(frozen=True)
class Adapters:
    """A store with the base, the folders of the adapters, and peft's own merged weights and greedy tokens.

    `beside` are the tokens with the adapter beside the weights, in float32.
    """

    cache_dir: Path
    folders: Mapping[str, Path]
    weights: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, list[list[int]]]
    beside: Mapping[str, list[list[int]]]


@pytest.fixture(scope="module")
def adapters(model_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    peft = pytest.importorskip("peft", reason="makes the adapters: pip install --no-deps peft")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("adapters")
    base = Store(model_cache).pull(BASE)
    (folder / "models").mkdir()
    (folder / "models" / BASE).symlink_to(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    folders, weights, answers, beside = {}, {}, {}, {}

    def complete(model: Any) -> list[list[int]]:
        prompts = [tokenizer(prompt, return_tensors="pt") for prompt in PROMPTS]
        outputs = [model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False)[0] for prompt in prompts]
        return [
            output[prompt["input_ids"].shape[1] :].tolist() for prompt, output in zip(prompts, outputs, strict=True)
        ]

    for seed, (name, fields) in enumerate(CONFIGS.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **fields)
        adapted = peft.get_peft_model(model, config)
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_" in parameter_name:
                parameter.data *= 0.3  # so that it changes what the model says and does not destroy it
        folders[name] = folder / name
        adapted.save_pretrained(folders[name])
        merged = adapted.merge_and_unload()
        weights[name] = {key: value.clone() for key, value in merged.state_dict().items()}
        answers[name] = complete(merged.float())
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        beside[name] = complete(peft.PeftModel.from_pretrained(plain, folders[name]))
    assert answers["one"] != answers["two"]
    return Adapters(folder, folders, weights, answers, beside)


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGS)
def test_the_merged_weights_equal_pefts_to_the_bit(adapters: Adapters, name: str) -> None:
    import torch
    from safetensors.torch import load_file

    folder = Store(adapters.cache_dir).pull(sources.merged(BASE, str(adapters.folders[name])))
    merged = load_file(folder / "model.safetensors")
    assert merged
    assert all(torch.equal(tensor, adapters.weights[name][key]) for key, tensor in merged.items())


@pytest.mark.long
def test_each_is_loaded_by_a_request_also_one_that_apply_adds_and_answers_as_pefts_own(
    adapters: Adapters, tmp_path: Path
) -> None:
    base = {
        "engine": "vllm",
        "source": BASE,
        "load": "on_demand",
        "idle_unload_s": 1,
        "min_resident_s": 0,
        "args": {"dtype": "float32", "max-model-len": 256, "kv-cache-memory-bytes": 2**28},
    }
    recipe, key = tmp_path / "recipe.yaml", "the-key-of-alice-only"

    def write(*names: str) -> Path:
        adapters_by_name = {name: {"source": str(adapters.folders[name])} for name in names}
        recipe.write_text(json.dumps({"models": {"base": {**base, "adapters": adapters_by_name}}}))
        return keys_file(tmp_path, json.dumps({"alice": {"key": key, "models": list(names)}}))

    keys = write("one")
    arguments = ("--server.cache_dir", str(adapters.cache_dir), "--auth.keys_file", str(keys))
    with serving(tmp_path, str(recipe), *arguments) as platform:
        platform.http.headers["authorization"] = f"Bearer {key}"
        body = {"max_tokens": TOKENS, "temperature": 0, "return_token_ids": True}
        for name in CONFIGS:
            if name == "two":
                write("two")
                applied = litport("apply", str(recipe), "--yes", "--port", platform.url.rpartition(":")[2])
                assert applied.returncode == 0, applied.stderr
            names = {entry["id"] for entry in platform.http.get("/v1/models").json()["data"]}
            assert names == {"base", name}
            answers = [
                platform.http.post("/v1/completions", json={"model": name, "prompt": prompt, **body}, timeout=120)
                for prompt in PROMPTS
            ]
            tokens = [answer.json()["choices"][0]["token_ids"] for answer in answers]
            assert tokens == adapters.answers[name]
            status = platform.wait_for(name, state="unloaded")
            residence: Any = status["residence"]
            assert (residence["loads"], residence["unloads"]["idle"]) == (1, 1)
            assert (status["process_count"], status["group_id"]) == (None, None)
            print(f"start {residence['load_s']} s, answered after {answers[0].elapsed.total_seconds():.2f} s")
        refusal = platform.http.post("/v1/completions", json={"model": "base", "prompt": "x", **body})
        assert refusal.status_code == 403, "its key is for the adapters"


@pytest.mark.long
def test_vllm_loads_and_unloads_them_while_it_serves_as_it_is_told_on_a_gpu(
    adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is for a GPU, on vLLM's CPU build, which is right while each batch has one adapter. Not run on a GPU."""
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    base = Store(adapters.cache_dir).pull(BASE)

    def settings(*names: str) -> VllmModel:
        args = {"dtype": "float32", "max-model-len": 256, "kv-cache-memory-bytes": 2**28, "enforce-eager": True}
        folders = {name: {"source": str(adapters.folders[name])} for name in names}
        return VllmModel.model_validate({"engine": "vllm", "source": str(base), "args": args, "adapters": folders})

    async def complete(model: Model, name: str) -> list[int]:
        connection = model.choose().connection
        assert connection is not None
        body = {"model": name, "max_tokens": TOKENS, "temperature": 0, "return_token_ids": True, "prompt": PROMPTS[0]}
        answer: list[int] = json.loads(await post(connection, "/v1/completions", body))["choices"][0]["token_ids"]
        return answer

    async def run() -> None:
        engine = VllmEngine("base", settings("one"), paths=openai.PATHS, cache_dir=adapters.cache_dir)
        async with supervising(tmp_path, engine, source=str(base)) as supervisor:
            model, roster = supervisor.models["base"], Roster(supervisor, Loader(supervisor, None))
            await wait_until_state(model, State.READY, timeout_s=240)
            group = group_of(model)
            plain = await complete(model, "base")
            for names in (["one", "two"], ["two"], ["one", "two"], []):
                await roster.adapt(model, settings(*names))
                card = model.card
                assert card is not None
                assert {entry["id"] for entry in card.listing} == {"base", *names}
                for name in names:
                    assert await complete(model, name) == adapters.beside[name][0], name
                assert await complete(model, "base") == plain
            assert group_of(model) == group, "the same processes"

    asyncio.run(run())
