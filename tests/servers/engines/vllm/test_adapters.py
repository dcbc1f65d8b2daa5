"""An adapter that was made for other weights is refused from its files, before vLLM starts."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.settings import VllmModel
from servers.engines import registry
from servers.engines.vllm import adapters
from servers.engines.vllm import engine as vllm
from servers.engines.vllm.engine import VllmEngine
from servers.models.instance import State
from tests.services.supervision import supervising

Q = "model.layers.{}.self_attn.q_proj"
WEIGHTS = {f"{Q.format(layer)}.weight": (576, 576) for layer in range(2)} | {
    "model.layers.0.mlp.up_proj.weight": (1536, 576),
    "model.layers.1.mlp.down_proj.qweight": (72, 1536),
}


def _write(folder: Path, file: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    folder.mkdir(exist_ok=True)
    entries = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for name, shape in shapes.items()}
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    (folder / file).write_bytes(len(header).to_bytes(8, "little") + header)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    _write(tmp_path / "model", "model.safetensors", WEIGHTS)
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


def _adapter(
    folder: Path, module: str = Q.format(1), width: int = 576, output: int = 576, rank: int = 8, **config: object
) -> str:
    """Write an adapter of one module; the value of lora-modules."""
    tensor = f"base_model.model.{module}.lora_"
    _write(
        folder, "adapter_model.safetensors", {f"{tensor}A.weight": (rank, width), f"{tensor}B.weight": (output, rank)}
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "lora_alpha": 16, **config}))
    return f"mine={folder}"


def _settings(module: object, source: str = "org/base", **args: object) -> VllmModel:
    args |= {"enable-lora": True, "lora-modules": [module]}
    return VllmModel.model_validate({"engine": "vllm", "source": source, "args": args})


@pytest.mark.parametrize(
    ("adapter", "problem"),
    [
        ({}, None),
        ({"module": "model.layers.0.mlp.up_proj", "output": 1536}, None),
        ({"module": "model.layers.1.mlp.down_proj", "width": 5, "output": 6}, None),  # packed: its shape is not known
        ({"base_model_name_or_path": "Org/Base"}, None),
        ({"base_model_name_or_path": "/data/base"}, None),
        ({"base_model_name_or_path": "org/other"}, "it is made for org/other, and the model is org/base"),
        ({"width": 960}, r"q_proj\.lora_A\.weight has \[8, 960\], and the model's .*q_proj\.weight \[576, 576\]"),
        ({"output": 192}, r"q_proj\.lora_B\.weight has \[192, 8\]"),
        ({"module": Q.format(2)}, "it has layer 2 .*, and the model's last one is 1"),
        ({"rank": 4}, r"its rank is 8 by adapter_config\.json, and .* has \[4, 576\]"),
        ({"rank": 4, "rank_pattern": {"q_proj": 4}}, None),
        ({"rank": 32, "r": 32}, "its rank is 32, and args.max-lora-rank is 16"),
        ({"r": None}, "its files cannot be read"),
    ],
)
def test_an_adapter_fits_its_model_or_is_refused(
    tmp_path: Path, model_dir: Path, adapter: dict[str, object], problem: str | None
) -> None:
    settings = _settings(_adapter(tmp_path / "adapter", **adapter))  # type: ignore[arg-type] # of several types
    if problem is None:
        adapters.check(settings, model_dir)
        return
    with pytest.raises(UserError, match=rf"args\.lora-modules: adapter 'mine' \(.*\): .*{problem}"):
        adapters.check(settings, model_dir)


def test_every_form_of_lora_modules_is_read_and_adapters_of_the_hub_are_left_to_vllm(
    tmp_path: Path, model_dir: Path
) -> None:
    _adapter(tmp_path / "adapter", width=960)
    module = {"name": "mine", "path": str(tmp_path / "adapter")}
    for form in (module, json.dumps(module)):
        with pytest.raises(UserError, match="adapter 'mine'"):
            adapters.check(_settings(form), model_dir)
    adapters.check(_settings("mine=org/adapter"), model_dir)


def test_it_is_refused_by_config_check_and_by_the_start_before_vllm_runs(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: False)
    settings = _settings(_adapter(tmp_path / "adapter", width=960), source=str(model_dir))
    [(field, text)] = registry.kind_of(settings).check_model(settings)
    assert field == "args.lora-modules"
    assert "has [8, 960]" in text

    async def run() -> None:
        engine = VllmEngine("one", settings)
        async with supervising(tmp_path, engine, source=str(model_dir)) as supervisor:
            await asyncio.wait_for(supervisor.fatal.wait(), 20)
            model = supervisor.models["one"]
            assert model.state is State.FAILED
            assert "args.lora-modules: adapter 'mine'" in model.choose().detail
            assert model.choose().group_id is None, "no process was started"

    asyncio.run(run())
