"""Transformers encoders over batches of texts; where the model allows it, one that computes no padding.

All but attention treats a token by itself, so the tokens of all sequences stand in one row. For attention alone, a
small part of the work, they are laid out in a grid of sequences and places, as usual.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

_ATTENTION = "litport_packed"
# These hand their attention to a function by name, and do nothing else between tokens; others may have a bias by
# position or a window, which such a function is not told of.
_TYPES = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
_INPUTS = ("tokens", "positions", "grid", "cells", "mask")
# What attention from one token to another costs, in tokens: (256 tokens - twice 128) of all-MiniLM-L6-v2 in bfloat16 on
# a core.
_PAIR_TOKENS = 1 / 2000


def encoder_of(model: Any) -> "PackedEncoder | PaddedEncoder":
    """The encoder that computes least of this transformers model.

    Raises ValueError as `can_pack` does, and for a model that would compute padding into the vectors.
    """
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{model.config.model_type}: it takes no attention mask, so texts of a batch would change each other"
        )
    return PackedEncoder(model) if can_pack(model) else PaddedEncoder(model)


def can_pack(model: Any) -> bool:
    """Whether a PackedEncoder of this transformers model computes the same as the model.

    Raises ValueError for weights with relative positions, which transformers reads and does not use.
    """
    config = model.config
    if config.model_type not in _TYPES:
        return False
    if (kind := getattr(config, "position_embedding_type", None) or "absolute") != "absolute":
        raise ValueError(
            f"position_embedding_type: expected absolute, the only one of {config.model_type}, got {kind!r}"
        )
    # One cuts the tokens of a row into equal parts, the other hides those that follow.
    return not (getattr(config, "chunk_size_feed_forward", 0) or getattr(config, "is_decoder", False))


def first_position(model: Any) -> int:
    """Where the positions of a text begin: 0, or behind the row of padding, as in RoBERTa and its kin."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


class PaddedEncoder(nn.Module):
    """An encoder as it is, over sequences that are as long as the longest: token ids and mask (sequences, places)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states (sequences, places, dimensions)."""
        states: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states (sequences, places, dimensions), those of padding, too."""
        return self(**self.inputs(input_ids, attention_mask))  # type: ignore[no-any-return] # torch has no types here

    def inputs(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """The inputs of `forward`."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    @staticmethod
    def cost(count: int, longest: int) -> float:
        """What so many sequences cost together, in tokens: those of the padding count."""
        return count * longest


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
        self._first_position = first_position(model)

    def forward(self, tokens: Tensor, positions: Tensor, grid: Tensor, cells: Tensor, mask: Tensor) -> Tensor:
        """The last hidden states of the tokens."""
        bias = None
        if torch.compiler.is_exporting() or not mask.all():
            # Not of booleans: for those an export guards each score against rows without a token, which are not here.
            dtype = self.model.dtype
            bias = torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None]
        places = {"grid": grid, "cells": cells, "bias": bias}
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
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        if self._first_position:  # such a model does not count the id of padding, wherever it stands
            padding = self._first_position - 1
            counted = is_token & (ids != padding)
            positions = counted.cumsum(1) * counted + padding
        cells = is_token.flatten().nonzero().squeeze(1)
        values = (ids[is_token], positions[is_token], grid, cells, mask)
        return dict(zip(_INPUTS, values, strict=True))

    @staticmethod
    def cost(count: int, longest: int) -> float:
        """What depends on which sequences run together, in tokens: attention, which alone has padding."""
        return _PAIR_TOKENS * count * longest**2


def _attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    grid: Tensor,
    cells: Tensor,
    bias: Tensor | None,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, of heads (1, heads, T, size); answers (1, T, heads, size).

    Without a `bias` the grid is full, and its cells are the tokens in their order.
    """

    def laid_out(heads: Tensor) -> Tensor:
        tokens = heads[0].transpose(0, 1)
        tokens = tokens if bias is None else tokens[grid.flatten()]
        return tokens.reshape(*grid.shape, *tokens.shape[1:]).transpose(1, 2)

    answer = nn.functional.scaled_dot_product_attention(
        laid_out(query), laid_out(key), laid_out(value), attn_mask=bias, scale=scaling
    )
    tokens = answer.transpose(1, 2).flatten(0, 1)
    return (tokens if bias is None else tokens[cells])[None], None


AttentionInterface.register(_ATTENTION, _attend)
