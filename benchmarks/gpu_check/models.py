"""Models with random weights, made where they are needed: a check of speed and of memory needs no others.

Every word of their vocabulary is a number, so any token ids are text and any text of numbers is token ids.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VOCABULARY = 32_000
_UNKNOWN = "0"


@dataclass(frozen=True)
class DecoderSize:
    """The sizes of a Llama."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner_width: int

    @property
    def head_dim(self) -> int:
        """The numbers of one head."""
        return self.width // self.heads


LARGE = DecoderSize(width=2048, layers=28, heads=16, kv_heads=8, inner_width=5632)
"""About 1.5 billion parameters."""
SMALL = DecoderSize(width=768, layers=12, heads=12, kv_heads=4, inner_width=2048)
"""About 130 million."""
TINY = DecoderSize(width=64, layers=2, heads=4, kv_heads=2, inner_width=128)
"""For a rehearsal on a processor."""


def make_llama(folder: Path, size: DecoderSize, device: str) -> int:
    """Save a Llama in bfloat16, made on the device; returns its number of parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        intermediate_size=size.inner_width,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return sum(weights.numel() for weights in model.parameters())


def make_encoder(folder: Path) -> None:
    """Save a BERT of the size of all-MiniLM-L6-v2."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=_VOCABULARY,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({str(index): index for index in range(_VOCABULARY)}, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=_UNKNOWN, pad_token=_UNKNOWN, model_max_length=512
    )
