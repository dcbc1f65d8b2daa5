"""A LoRA adapter in a copy of its model: the right numbers, no space for what did not change, and no wrong adapters."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from servers.store import Store, adapter, merge, sources
from tests.services.lora import Q, write_adapter, write_model

CHANGED, UNCHANGED = "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 8 / 2),
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"r": 64, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"self_attn.q_proj": 1}}, 1 / 2),
        ({"rank_pattern": {"proj": 7}, "alpha_pattern": {"layers.0.self_attn.q_proj": 1}}, 8 / 2),
    ],
)
def test_the_scaled_product_of_the_factors_is_added(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    import torch
    from safetensors.torch import load_file

    base, lora = write_model(tmp_path / "base"), write_adapter(tmp_path / "lora", **config)
    adapter.check(lora, base, sources.FolderSource(base))
    target = tmp_path / "merged"
    target.mkdir()
    merge.merge(base, lora, target)
    before, after = (load_file(folder / CHANGED) for folder in (base, target))
    a, b = (load_file(lora / adapter.WEIGHTS)[f"base_model.model.{Q.format(1)}.lora_{side}.weight"] for side in "AB")
    weight = f"{Q.format(1)}.weight"
    assert torch.equal(after.pop(weight), (before.pop(weight).float() + b @ a * scale).bfloat16())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert (base / UNCHANGED).samefile(target / UNCHANGED), "it takes no space"
    assert not (base / CHANGED).samefile(target / CHANGED)
    assert not (target / "modeling.py").exists(), "code is not part of a model"


@pytest.mark.long
def test_the_store_keeps_the_copy_by_the_content_of_both(tmp_path: Path, store: Store) -> None:
    base, lora = write_model(tmp_path / "base"), write_adapter(tmp_path / "lora")
    source = sources.merged(str(base), str(lora))
    assert store.find(source) is None
    folder = store.pull(source)
    assert store.find(source) == folder
    assert [model.source for model in store.list()] == [source]
    (folder / CHANGED).write_bytes(b"cut")
    assert store.find(source) is None
    assert store.pull(source) == folder, "made anew"
    (lora / adapter.CONFIG).write_text(
        (lora / adapter.CONFIG).read_text().replace('"lora_alpha": 8', '"lora_alpha": 4')
    )
    assert store.find(source) is None, "another adapter"
    assert store.remove(folder.name) > 0
    assert (base / UNCHANGED).exists()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (
            {"base_model_name_or_path": "org/other"},
            "adapter_config.json: base_model_name_or_path: it is made for org/other",
        ),
        ({"width": 5}, r"adapter_model.safetensors: .*lora_A.weight has \[2, 5\], and the model's .* \[10, 6\]"),
        ({"layer": 2}, "adapter_model.safetensors: it has layer 2 .*, and the model's last one is 1"),
        ({"rank": 513}, "adapter_config.json: r: its rank is 513, and args.max-lora-rank is 512"),
        ({"use_dora": True}, "adapter_config.json: use_dora: expected plain LoRA, without it, got True"),
        ({"modules_to_save": ["lm_head"]}, r"adapter_config.json: modules_to_save: expected .* got \['lm_head'\]"),
        ({"bias": "all"}, "adapter_config.json: bias: expected none, got 'all'"),
        ({"init_lora_weights": "pissa"}, "adapter_config.json: init_lora_weights: .*, got 'pissa'"),
        ({"peft_type": "IA3"}, "adapter_config.json: peft_type: expected LORA, got 'IA3'"),
        ({"lora_alpha": "x", "r": None}, "adapter_config.json: its fields cannot be read: "),
        (
            {"extra": "base_model.model.lm_head.weight"},
            "adapter_model.safetensors: base_model.model.lm_head.weight: expec",
        ),
        (
            {"extra": "base_model.model.model.norm.lora_A.weight"},
            "model.norm: expected lora_A and lora_B, got lora_A alone",
        ),
    ],
)
def test_a_wrong_adapter_is_one_line_with_file_and_field(tmp_path: Path, wrong: dict[str, Any], problem: str) -> None:
    base, lora = write_model(tmp_path / "base"), write_adapter(tmp_path / "lora", **wrong)
    with pytest.raises(UserError, match=problem) as caught:
        adapter.check(lora, base, sources.HubSource("org/base"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "size", "problem"),
    [
        (
            adapter.WEIGHTS,
            -4,
            r"adapter_model.safetensors is damaged: expected \d+ bytes by its own header, it has \d+",
        ),
        (adapter.WEIGHTS, 5, "adapter_model.safetensors is damaged: it is cut short or not safetensors"),
        (adapter.WEIGHTS, None, "adapter_model.safetensors: expected the adapter's weights"),
        (adapter.CONFIG, 20, "adapter_config.json is cut short or not JSON"),
        (adapter.CONFIG, None, "adapter_config.json: expected a LoRA adapter in .*, it has no such file"),
    ],
)
def test_a_damaged_adapter_is_named_and_nothing_is_kept(
    tmp_path: Path, store: Store, file: str, size: int | None, problem: str
) -> None:
    base, lora = write_model(tmp_path / "base"), write_adapter(tmp_path / "lora")
    content = (lora / file).read_bytes()
    (lora / file).unlink()
    if size is not None:
        (lora / file).write_bytes(content[:size])
    source = sources.merged(str(base), str(lora))
    with pytest.raises(UserError, match=problem) as caught:
        store.pull(source)
    assert "\n" not in str(caught.value)
    assert store.list() == []


@pytest.mark.parametrize("text", ["merged:org/base", "merged:org/base + plain", "merged:merged:a/b + c/d + e/f"])
def test_a_merged_source_has_two_parts(text: str) -> None:
    with pytest.raises(UserError, match="model source"):
        sources.parse(text)
    assert str(sources.parse("merged:org/base@v1 + org/adapter")) == "merged:org/base@v1 + org/adapter"
