"""The sizes of a decoder, from the configuration beside its weights."""

import json
from pathlib import Path
from typing import Self

import msgspec

from configs.settings import VllmModel
from servers.engines.base import weight_bytes

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Decoder(msgspec.Struct, frozen=True):
    """`width_bytes` is what one of its numbers takes in memory; `context_tokens` is the longest sequence, if known."""

    parameters: float
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    width_bytes: int
    context_tokens: int | None

    @classmethod
    def read(cls, model_dir: Path, dtype: str | None) -> Self | None:
        """The model in this folder, computed in `dtype` (None or "auto": that of its files); None for no decoder."""
        file = model_dir / "config.json"
        config = json.loads(file.read_text()) if file.is_file() else {}
        if "num_attention_heads" not in config or "num_hidden_layers" not in config:
            return None
        heads = config["num_attention_heads"]
        file_dtype = str(config.get("torch_dtype") or config.get("dtype"))
        return cls(
            parameters=weight_bytes(model_dir) / _BYTES.get(file_dtype, 2),
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            width_bytes=_BYTES.get(file_dtype if dtype in (None, "auto") else str(dtype), 2),
            context_tokens=config.get("max_position_embeddings"),
        )

    @classmethod
    def of(cls, settings: VllmModel, model_dir: Path | None) -> Self | None:
        """The model in this folder, computed in the settings' `dtype`; None for no decoder or no folder."""
        dtype = settings.args.get("dtype")
        return cls.read(model_dir, dtype if isinstance(dtype, str) else None) if model_dir else None

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.width_bytes
