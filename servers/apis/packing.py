"""A transformers encoder that computes each token of a batch and no padding.

All but attention treats a token by itself, so the tokens of all sequences stand in one row. For attention alone, a
small part of the work, they are laid out in a grid of sequences and places, as usual.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

_ATTENTION = "litport_packed"
_BERT, _ROBERTA = "bert", "roberta"
# How each type of model counts positions. These hand their attention to a function by name and do nothing else between
# tokens; others may have a bias by position or a window, which such a function is not told of.
_POSITIONS = {
    "bert": _BERT,
    "distilbert": _BERT,
    "electra": _BERT,
    "camembert": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
_INPUTS = ("tokens", "positions", "grid", "cells", "mask")


def can_pack(model: Any) -> bool:
    """Whether a PackedEncoder of this transformers model computes the same as the model."""
    return model.config.model_type in _POSITIONS and not getattr(model.config, "is_decoder", False)


class PackedEncoder(nn.Module):
    """An encoder over the tokens of several sequences in one row.

    `tokens` and `positions` have a number for each of T tokens, `grid` and `mask` (sequences, places) the place of each
    in that row and whether there is a token, `cells` (T,) the place of each token in the grid. Answers (T, dimensions).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.config._attn_implementation = _ATTENTION

    def forward(self, tokens: Tensor, positions: Tensor, grid: Tensor, cells: Tensor, mask: Tensor) -> Tensor:
        """The last hidden states of the tokens."""
        dtype = self.model.dtype
        # Not of booleans: for those an export guards each score against rows without a token, which are not here.
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask == 0, torch.finfo(dtype).min)
        places = {"grid": grid, "cells": cells, "bias": bias[:, None, None]}
        answer = self.model(input_ids=tokens[None], position_ids=positions[None], **places)
        states: Tensor = answer.last_hidden_state[0]
        return states

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states (sequences, places, dimensions); where there is no token, those of some token."""
        inputs = self.inputs(input_ids, attention_mask)
        return self(**inputs)[inputs["grid"]]  # type: ignore[no-any-return] # torch has no types here

    def inputs(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The inputs of `forward` for token ids (sequences, places) with a mask of the same shape."""
        ids, mask = input_ids, attention_mask
        is_token = mask.bool()
        grid = (is_token.flatten().cumsum(0).view(mask.shape) - 1) * is_token
        if _POSITIONS[self.config.model_type] == _BERT:
            positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        else:
            counted = is_token & (ids != self.config.pad_token_id)
            positions = counted.cumsum(1) * counted + self.config.pad_token_id
        cells = is_token.flatten().nonzero().squeeze(1)
        values = (ids[is_token], positions[is_token], grid, cells, mask)
        return dict(zip(_INPUTS, values, strict=True))


def _attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    grid: Tensor,
    cells: Tensor,
    bias: Tensor,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, of heads (1, heads, T, size); answers (1, T, heads, size)."""

    def laid_out(heads: Tensor) -> Tensor:
        tokens = heads[0].transpose(0, 1)[grid.flatten()]
        return tokens.view(*grid.shape, *tokens.shape[1:]).transpose(1, 2)

    answer = nn.functional.scaled_dot_product_attention(
        laid_out(query), laid_out(key), laid_out(value), attn_mask=bias, scale=scaling
    )
    return answer.transpose(1, 2).flatten(0, 1)[cells][None], None


AttentionInterface.register(_ATTENTION, _attend)
