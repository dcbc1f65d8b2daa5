"""A model of transformers' is loaded whole, or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from servers.apis import pretrained


@pytest.fixture
def tiny_bert(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def without(folder: Path, part: str) -> None:
    """Leave out the tensors whose names hold this part."""
    file = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if part not in name}
    save_file(kept, file, metadata={"format": "pt"})


def test_missing_weights_are_an_error_and_not_random(tiny_bert: Path) -> None:
    without(tiny_bert, "attention.self.query.weight")
    with pytest.raises(ValueError, match=r"lack 1 of the model's tensors, such as encoder\.layer\.0\.attention"):
        pretrained.load(AutoModel, tiny_bert)


def test_a_pooler_that_is_not_used_may_be_missing(tiny_bert: Path) -> None:
    without(tiny_bert, "pooler")
    assert pretrained.load(AutoModel, tiny_bert).config.hidden_size == 8
