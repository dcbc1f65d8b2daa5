"""Encoders whose batches hold no padding compute what transformers' own models compute with it."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from servers.apis.packing import PackedEncoder, can_pack

PAD = 1
LENGTHS = (9, 3, 30, 1)


@pytest.fixture(params=["bert", "distilbert", "electra", "camembert", "roberta", "xlm-roberta"])
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _model(model_type: str, **options: Any) -> Any:
    """A small model with weights of its own for each place."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
        "vocab_size": 99,
        "pad_token_id": PAD,
    }
    torch.manual_seed(1)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **{**sizes, **options})).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    return model


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(LENGTHS), max(LENGTHS)), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(2, 99, (length,))
        mask[row, :length] = 1
    return ids, mask


@torch.inference_mode()
def test_states_are_those_of_the_padded_model(model_type: str) -> None:
    ids, mask = _batch()
    model = _model(model_type)
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert can_pack(model)
    states = PackedEncoder(_model(model_type)).states(ids, mask)
    assert torch.allclose(states[mask.bool()], expected[mask.bool()], atol=1e-4)
    assert expected[mask.bool()].std() > 0.1


@torch.inference_mode()
def test_the_id_of_padding_within_a_text_counts_as_in_transformers(model_type: str) -> None:
    ids, mask = _batch()
    ids[2, 4] = PAD
    expected = _model(model_type)(input_ids=ids, attention_mask=mask).last_hidden_state
    states = PackedEncoder(_model(model_type)).states(ids, mask)
    assert torch.allclose(states[mask.bool()], expected[mask.bool()], atol=1e-4)


@torch.inference_mode()
def test_it_computes_no_padding() -> None:
    ids, mask = _batch()
    encoder = PackedEncoder(_model("bert"))
    seen: list[int] = []
    encoder.model.encoder.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    encoder.states(ids, mask)
    assert seen == [sum(LENGTHS)]


@pytest.mark.parametrize(("model_type", "options"), [("mpnet", {}), ("modernbert", {}), ("bert", {"is_decoder": True})])
def test_models_that_do_more_between_tokens_are_left_alone(model_type: str, options: dict[str, Any]) -> None:
    assert not can_pack(_model(model_type, **options))
