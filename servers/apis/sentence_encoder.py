"""A sentence encoder: a transformers model, its tokenizer, and the pooling that its folder prescribes.

It reads the folder layout of sentence-transformers (`modules.json`, `1_Pooling/`, the default prompt) without that
dependency, which would only add a pooling and a norm. A folder with an unknown module is an error, as its vectors would
be slightly wrong.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from servers.apis import equality, pretrained, runtimes
from servers.apis.equality import EAGER, Variant
from servers.apis.packing import PackedEncoder, PaddedEncoder, encoder_of, first_position

# What a forward costs beside its tokens, in tokens: it reads all weights from memory. Measured on a core with
# all-MiniLM-L6-v2: 7.2 ms and 0.24 ms a token in float32, 4.8 and 0.14 in bfloat16. On other devices the fewest
# forwards are taken to be the best.
_FORWARD_TOKENS = {"cpu": 32}
_MOST_FORWARD_TOKENS = 2**20
# In a shorter type than float32 torch has oneDNN make code for each number of tokens, and keeps 1,024 such pieces; with
# fewer a process had 0.36 GB less after 750 batches of any size, at 2 % more processor time.
_KEPT_PRIMITIVES = "256"


@dataclass(frozen=True)
class SentenceEncoder:
    """A model on its device. A sequence has at most `max_tokens` tokens, special tokens included.

    The `prompt` stands before each text.
    """

    model: PackedEncoder | PaddedEncoder
    device: str
    tokenizer: Any
    pooling: str
    normalizes: bool
    max_tokens: int
    forward_size: int
    lowers_case: bool
    prompt: str

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary_size(self) -> int:
        """Token ids lie below this."""
        return int(self.model.config.vocab_size)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text with the model's special tokens, not truncated."""
        texts = [self.prompt + text for text in texts]
        if self.lowers_case:
            texts = [text.lower() for text in texts]
        ids: list[list[int]] = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return ids

    def embed(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Vectors (sequences, dimensions), float32 on the CPU, in the order of the sequences.

        Sequences of similar length run together, at most `forward_size` at a time: short ones, or their attention, are
        not padded to the longest of all, and memory does not grow with their number.
        """
        by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        vectors = torch.empty(len(sequences), self.dimensions)
        lengths = [len(sequences[index]) for index in by_length]
        forward_tokens = _FORWARD_TOKENS.get(torch.device(self.device).type, _MOST_FORWARD_TOKENS)
        for begin, end in forward_groups(lengths, self.forward_size, forward_tokens, self.model.cost):
            indices = by_length[begin:end]
            vectors[indices] = self._forward([sequences[index] for index in indices])
        return vectors

    @torch.inference_mode()
    def _forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        width = max(len(sequence) for sequence in sequences)
        ids = torch.full((len(sequences), width), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        states = self.model.states(ids, mask).float()
        vectors: Tensor
        if self.pooling == "cls":
            vectors = states[:, 0]
        else:
            weights = mask.unsqueeze(-1).float()
            vectors = (states * weights).sum(dim=1) / weights.sum(dim=1)
        if self.normalizes:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors.cpu()


def from_folder(model_dir: Path, device: str, variant: Variant, forward_size: int) -> SentenceEncoder:
    """The encoder in `model_dir`, on `device`, in the precision and runtime of the variant.

    Raises ValueError if the folder needs a step that is not known or weights that transformers does not use, UserError
    where the runtime cannot run it.
    """
    from transformers import AutoModel, AutoTokenizer

    runtimes.refuse_precision(variant, device)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KEPT_PRIMITIVES)  # read once, at the first forward
    prompt = _default_prompt(model_dir)
    pooling, normalizes = _pooling(model_dir, prompt)
    dtype = variant.precision if variant.runtime == "eager" else EAGER
    answers = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    model = pretrained.load(AutoModel, model_dir, dtype=dtype, **answers).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = [tokenizer.model_max_length, positions and positions - first_position(model)]
    options = _read_json(model_dir / "sentence_bert_config.json", {})
    limits.append(options.get("max_seq_length"))
    max_tokens = min(limit for limit in limits if limit and limit > 0)
    encoder = encoder_of(model)
    if variant.runtime != "eager":
        replacement = runtimes.prepare(variant, encoder, encoder.inputs(**_example()), device)
        replacement.enable()
        replacement.release()
    lowers = bool(options.get("do_lower_case"))
    return SentenceEncoder(encoder, device, tokenizer, pooling, normalizes, max_tokens, forward_size, lowers, prompt)


def forward_groups(
    lengths: Sequence[int], most: int, forward_tokens: int, cost_of: Callable[[int, int], float]
) -> list[tuple[int, int]]:
    """Where to cut ascending lengths into groups of at most `most`, so that all forwards together cost least.

    Returns begins and ends. A forward costs `forward_tokens` and what `cost_of` says of the number of its sequences and
    the length of the longest. The best last group is found for each prefix in turn.
    """
    costs, begins = [0.0], [0]
    for end in range(1, len(lengths) + 1):
        cost, begin = min(
            (costs[begin] + forward_tokens + cost_of(end - begin, lengths[end - 1]), begin)
            for begin in range(max(0, end - most), end)
        )
        costs.append(cost)
        begins.append(begin)
    groups, end = [], len(lengths)
    while end:
        groups.append((begins[end], end))
        end = begins[end]
    return groups[::-1]


def answer_proof(items: Sequence[str | Sequence[int]], encoder: SentenceEncoder, size: int | None) -> Tensor:
    """The vectors of the texts of the proof: the first alone, the others together, in lengths from 3 to the limit.

    Then those of the `items` of checks, texts or token ids, each alone. With a `size`, of so many texts of middling
    length at once.
    """
    texts = equality.TEXTS if size is None else (equality.TEXTS[5:9] * size)[:size]
    sequences = [ids[: encoder.max_tokens] for ids in encoder.tokenize(texts)]
    if size is not None:
        return encoder.embed(sequences)
    # The API refuses a text that is too long, and ids beyond the vocabulary; here they only have to be computed.
    most = encoder.vocabulary_size - 1
    ids_of_items = [encoder.tokenize([item])[0] if isinstance(item, str) else item for item in items]
    more = [[min(max(index, 0), most) for index in ids[: encoder.max_tokens]] for ids in ids_of_items]
    return torch.cat([encoder.embed(group) for group in (sequences[:1], sequences[1:], *([ids] for ids in more))])


def _example() -> dict[str, Tensor]:
    ids = torch.ones(2, 16, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _pooling(model_dir: Path, prompt: str) -> tuple[str, bool]:
    # Without modules.json the folder is a bare encoder; for it sentence-transformers uses mean pooling and no norm.
    modules = _read_json(model_dir / "modules.json", [])
    kinds = {module["type"].rpartition(".")[2]: module for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(f"{model_dir}/modules.json asks for {', '.join(sorted(unknown))}, which is not supported")
    pooling = "mean"
    if "Pooling" in kinds:
        config = _read_json(model_dir / kinds["Pooling"]["path"] / "config.json", {})
        if prompt and not config.get("include_prompt", True):
            raise ValueError(f"{model_dir} asks to leave its prompt out of the pooling, which is not supported")
        modes = [name for name, is_on in config.items() if name.startswith("pooling_mode_") and is_on]
        pooling = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get("+".join(modes), "")
        if not pooling:
            raise ValueError(f"expected mean or cls pooling in {model_dir}, got {modes}")
    return pooling, "Normalize" in kinds


def _default_prompt(model_dir: Path) -> str:
    # What sentence-transformers puts before a text where nobody names another prompt.
    file = model_dir / "config_sentence_transformers.json"
    config = _read_json(file, {})
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    if name not in prompts:
        raise ValueError(f"{file}: default_prompt_name: expected one of {sorted(prompts)}, got {name!r}")
    return str(prompts[name])


def _read_json(file: Path, default: Any) -> Any:
    return json.loads(file.read_text()) if file.is_file() else default
