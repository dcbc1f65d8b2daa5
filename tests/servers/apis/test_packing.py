"""Encoders whose batches hold no padding compute what transformers' own models compute with it."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from servers.apis.packing import PackedEncoder, can_pack, encoder_of, first_position

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


def _batch(lengths: Sequence[int] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(2, 99, (length,))
        mask[row, :length] = 1
    return ids, mask


@pytest.mark.parametrize("lengths", [LENGTHS, (7,), (5, 5, 5)], ids=str)
@torch.inference_mode()
def test_states_are_those_of_the_padded_model(model_type: str, lengths: Sequence[int]) -> None:
    ids, mask = _batch(lengths)
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


@torch.inference_mode()
def test_the_longest_text_has_a_position_for_each_token(model_type: str) -> None:
    model = _model(model_type)
    longest = 48 - first_position(model)
    assert longest == (46 if "roberta" in model_type or model_type == "camembert" else 48)
    model(input_ids=torch.full((1, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 7))


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("mpnet", {}), ("modernbert", {}), ("bert", {"is_decoder": True}), ("bert", {"chunk_size_feed_forward": 4})],
)
def test_models_that_do_more_between_tokens_are_left_alone(model_type: str, options: dict[str, Any]) -> None:
    assert not can_pack(_model(model_type, **options))


def test_relative_positions_which_transformers_does_not_compute_are_refused() -> None:
    with pytest.raises(ValueError, match=r"position_embedding_type: expected absolute.* got 'relative_key'"):
        can_pack(_model("bert", position_embedding_type="relative_key"))


def test_a_model_that_takes_no_mask_is_refused_as_padding_would_change_its_vectors() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 9}
    with pytest.raises(ValueError, match="fnet: it takes no attention mask"):
        encoder_of(AutoModel.from_config(AutoConfig.for_model("fnet", **sizes)))
