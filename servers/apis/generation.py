"""Text generation with a plain transformers model: batched, left-padded, with a KV cache.

It is the baseline for servers such as vLLM. It has no paging, and no request joins a running batch, but it does no
needless work: finished rows leave the batch, and logits are computed for the last position only. It does not depend on
HTTP or LitServe.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from servers.apis.text_stream import TextStream


@dataclass(frozen=True)
class Prompt:
    """One row and its options. `temperature` 0 is greedy; `seed` makes sampling repeatable in any batch."""

    token_ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False


@dataclass(frozen=True)
class Step:
    """The result of one forward for one row: its token and the text that is now final. The last has a finish_reason."""

    token_id: int
    text: str
    finish_reason: Literal["stop", "length"] | None


class Generation:
    """A model and its tokenizer, ready to generate."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._eos = _eos_ids(model, tokenizer)
        self._arguments = inspect.signature(model.forward).parameters

    def steps(self, prompts: Sequence[Prompt]) -> Iterator[list[Step | None]]:
        """Generate for all prompts at once; each item holds one entry for each prompt, None for finished ones."""
        rows = [_Row(prompt, self._eos, self._tokenizer, self._model.device) for prompt in prompts]
        live = list(range(len(rows)))
        ids, mask = self._pad(prompts)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        cache = None
        while live:
            logits, cache = self._forward(ids, mask, positions, cache)
            greedy = logits.argmax(dim=-1).tolist()
            tokens = [rows[row].choose(logits[index], greedy[index]) for index, row in enumerate(live)]
            steps: list[Step | None] = [None] * len(rows)
            for row, token in zip(live, tokens, strict=True):
                steps[row] = rows[row].take(token)
            yield steps
            keep = [index for index, row in enumerate(live) if not rows[row].is_finished]
            if keep and len(keep) < len(live):
                indices = torch.tensor(keep, device=mask.device)
                mask, positions = mask[indices], positions[indices]
                cache.batch_select_indices(indices)
            live = [live[index] for index in keep]
            ids = torch.tensor([[tokens[index]] for index in keep], device=mask.device)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            positions = positions[:, -1:] + 1

    def _pad(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        # On the left, so that the next token of every row is in the same column.
        width = max(len(prompt.token_ids) for prompt in prompts)
        ids = torch.full((len(prompts), width), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
            mask[row, width - len(prompt.token_ids) :] = 1
        return ids.to(self._model.device), mask.to(self._model.device)

    @torch.inference_mode()
    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        # Some architectures take no positions (ALiBi) or always return all logits, which need much memory.
        optional = {"position_ids": positions, "logits_to_keep": 1}
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._arguments},
        )
        return output.logits[:, -1].float(), output.past_key_values


class _Row:
    def __init__(self, prompt: Prompt, eos: frozenset[int], tokenizer: Any, device: torch.device) -> None:
        self.is_finished = False
        self._prompt = prompt
        self._eos = frozenset() if prompt.ignore_eos else eos
        self._text = TextStream(tokenizer, prompt.stop)
        self._count = 0
        self._random = torch.Generator(device)
        if prompt.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(prompt.seed)

    def choose(self, logits: Tensor, greedy: int) -> int:
        """The next token: `greedy`, the likeliest, or a sample by the logits (vocabulary), float32."""
        if self._prompt.temperature == 0:
            return greedy
        shares, tokens = torch.softmax(logits / self._prompt.temperature, dim=-1).sort(descending=True)
        # Keep the fewest tokens whose probabilities add up to top_p.
        shares[shares.cumsum(dim=-1) - shares >= self._prompt.top_p] = 0
        return int(tokens[torch.multinomial(shares, 1, generator=self._random)])

    def take(self, token: int) -> Step:
        """Count the token as generated, and return its step."""
        self._count += 1
        text = self._text.push(token)
        reason: Literal["stop", "length"] | None = None
        if token in self._eos or self._text.stopped:
            reason = "stop"
        elif self._count >= self._prompt.max_tokens:
            reason = "length"
        if reason:
            self.is_finished = True
            text += self._text.finish()
        return Step(token, text, "stop" if self._text.stopped else reason)


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    ids = {tokenizer.eos_token_id}
    eos = getattr(model.generation_config, "eos_token_id", None)
    ids.update(eos if isinstance(eos, list) else [eos])
    return frozenset(ids - {None})
