"""Adapters named under a model: models of their own on a CPU, vLLM's own on a GPU, refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import SettingsError, UserError
from configs.loading import LoadedSettings
from configs.settings import VllmModel
from servers.engines.vllm import adapters
from servers.engines.vllm import engine as vllm
from servers.engines.vllm.engine import VllmEngine
from servers.models.instance import Instance
from servers.models.model import Model
from servers.platform import targets
from tests.servers.gateway.keyrings import keys_file
from tests.services.lora import write_adapter, write_model


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


def _load(folder: Path, base: Path, *overrides: str, **adapters: str) -> LoadedSettings:
    model = {"engine": "vllm", "source": str(base), "aliases": ["gpt-4o-mini"], "max_waiting": 7}
    sources = {name: {"source": source} for name, source in adapters.items()}
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps({"models": {"chat": {**model, "adapters": sources}}}, indent=1))
    return targets.load([str(recipe)], ["--server.cache_dir", str(folder / "cache"), *overrides])


def test_on_a_cpu_each_is_a_model_with_the_settings_of_its_base(tmp_path: Path, base: Path) -> None:
    write_adapter(tmp_path / "lora")
    loaded = _load(tmp_path, base, "--models.chat.adapters.org/b.c.source", "org/b", tuned="./lora")
    assert list(loaded.settings.models) == ["chat", "tuned", "org/b.c"]
    tuned = loaded.settings.models["tuned"]
    assert tuned.source == f"merged:{base} + {tmp_path / 'lora'}", "the path starts at the recipe"
    assert (tuned.max_waiting, tuned.aliases) == (7, [])
    alone = _load(tmp_path, base)
    assert alone.settings.models == {"chat": loaded.settings.models["chat"]}, "the base is the same model without them"
    loaded = _load(tmp_path, base, "--models.chat.adapters.org/b.c.source", "org/b", tuned="./lora")
    assert loaded.origins["models", "tuned", "source"] == f"{tmp_path / 'recipe.yaml'}:12"
    assert loaded.origins["models", "tuned", "max_waiting"] == f"{tmp_path / 'recipe.yaml'}:9"
    targets.check(loaded)


def test_on_a_gpu_vllm_gets_its_own_options_for_them(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the command line: it was not run on a GPU."""
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    lora = write_adapter(tmp_path / "lora", rank=9, r=9)
    loaded = _load(tmp_path, base, tuned=str(lora))
    assert list(loaded.settings.models) == ["chat"]
    assert _words(loaded, base) == [
        *("--enable-lora", "--lora-modules", f"tuned={lora}", "--max-loras=1", "--max-lora-rank=16")
    ]
    loaded = _load(
        tmp_path, base, tuned=str(write_adapter(tmp_path / "mixed", rank=9, r=2, rank_pattern={"q_proj": 9}))
    )
    assert _words(loaded, base)[-1] == "--max-lora-rank=16", "one module has a higher rank than the others"
    loaded = _load(tmp_path, base, tuned=str(lora), other="org/other")
    words = _words(loaded, base)
    assert words[2:4] == [f"tuned={lora}", "other=org/other"]
    assert words[-2:] == ["--max-loras=2", "--max-lora-rank=512"], "the rank of one is not known"
    loaded = _load(tmp_path, base, "--models.chat.args.max-lora-rank", "32", tuned=str(lora))
    assert _words(loaded, base)[-1] == "--max-lora-rank=32"
    loaded = _load(tmp_path, base, tuned=str(write_adapter(tmp_path / "wide", width=5)))
    with pytest.raises(UserError, match=r"adapters\.tuned\.source: adapter_model\.safetensors: .* has \[2, 5\]"):
        _words(loaded, base)


def test_an_adapter_in_the_models_own_process_has_a_name_of_its_own_in_keys_and_metrics(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    write_adapter(tmp_path / "lora")
    keys = keys_file(tmp_path, "alice: {key: the-key-of-alice-only, models: [tuned]}")
    loaded = _load(tmp_path, base, "--auth.keys_file", str(keys), tuned="./lora")
    targets.check(loaded)
    settings = loaded.settings.models["chat"]
    assert isinstance(settings, VllmModel)
    model = Model("chat", settings, VllmEngine("chat", settings), [Instance(Path("socket"), Path("log"))])
    assert [model.granted_name(name) for name in ("tuned", "chat", "gpt-4o-mini", None)] == ["tuned", *["chat"] * 3]


def _words(loaded: LoadedSettings, base: Path) -> list[str]:
    settings = loaded.settings.models["chat"]
    assert isinstance(settings, VllmModel)
    engine = VllmEngine("chat", settings, cache_dir=loaded.settings.server.cache_dir)
    argv = engine.command(base, Path("/run/0.sock")).argv
    return argv[argv.index("--enable-lora") :]


@pytest.mark.parametrize(
    ("wrong", "overrides", "problem"),
    [
        ({"width": 5}, (), "adapter_model.safetensors: "),
        ({"use_dora": True}, (), "adapter_config.json: use_dora: "),
        (
            {"rank": 9},
            ("--models.chat.args.max-lora-rank", "8"),
            "adapter_config.json: r: its rank is 9, and args.max-lora",
        ),
        ({}, ("--models.chat.adapters.tuned.source", "/nowhere"), "expected a folder with a LoRA adapter at /nowhere"),
        ({}, ("--models.chat.adapters.tuned.source", "pypi:a==1"), "expected an adapter of the hub or a folder"),
    ],
)
def test_one_that_does_not_fit_is_refused_before_anything_starts(
    tmp_path: Path, base: Path, wrong: dict[str, Any], overrides: tuple[str, ...], problem: str
) -> None:
    lora = write_adapter(tmp_path / "lora", **wrong)
    loaded = _load(tmp_path, base, *overrides, tuned=str(lora))
    models = {name: model for name, model in loaded.settings.models.items() if isinstance(model, VllmModel)}
    [line] = adapters.problems(models, tmp_path / "cache", loaded.origins)
    assert line.startswith(f"models.chat.adapters.tuned.source: {problem}")
    assert line.endswith(f"(from {loaded.origins['models', 'chat', 'adapters', 'tuned', 'source']})")


def test_a_limit_of_the_rank_that_is_no_number_is_left_to_vllm(tmp_path: Path, base: Path) -> None:
    lora = write_adapter(tmp_path / "lora")
    loaded = _load(tmp_path, base, "--models.chat.args.max-lora-rank", "sixteen", tuned=str(lora))
    models = {name: model for name, model in loaded.settings.models.items() if isinstance(model, VllmModel)}
    assert adapters.problems(models, tmp_path / "cache", loaded.origins) == []


def test_config_check_tells_of_them(tmp_path: Path, base: Path) -> None:
    write_adapter(tmp_path / "lora", use_dora=True)
    with pytest.raises(SettingsError, match=r"models\.chat\.adapters\.tuned\.source: adapter_config\.json: use_dora: "):
        targets.check(_load(tmp_path, base, tuned="./lora"))


def test_names_are_told_apart_and_misspelt_settings_are_told(tmp_path: Path, base: Path) -> None:
    with pytest.raises(SettingsError, match=r"chat\.adapters: expected new names, got 'gpt-4o-mini', an alias of"):
        _load(tmp_path, base, **{"gpt-4o-mini": "./lora"})
    with pytest.raises(SettingsError, match=r"adapters\.tuned\.sorce: no such setting; did you mean .*tuned\.source"):
        _load(tmp_path, base, "--models.chat.adapters.tuned.sorce", "./lora", tuned="./lora")
    with pytest.raises(SettingsError, match=r"adapters\.tuned: expected a mapping"):
        _load(tmp_path, base, "--models.chat.adapters.tuned", "./lora")
