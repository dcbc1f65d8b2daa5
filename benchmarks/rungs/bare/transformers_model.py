"""transformers' `generate`, called in a loop: one request at a time, or as many as are due in a static batch.

It is the library as its documentation shows it. Requests of a batch start and end together: serving engines do better.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList

from benchmarks.analysis.measurement import Answer
from benchmarks.load.workload import Item
from benchmarks.rungs.bare.feed import Due, Feed
from benchmarks.rungs.bare.outcome import Outcome


class TransformersModel:
    """A causal language model from `model_dir`; a batch holds at most `batch_size` requests."""

    def __init__(self, model_dir: Path, dtype: str, batch_size: int) -> None:
        self.batch_size = batch_size
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(model_dir)
        self._model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).to(device).eval()
        config = self._model.generation_config
        # Greedy, and to the length asked for: the end of text is a token like any other, as for vLLM's ignore_eos.
        config.do_sample, config.temperature, config.top_p, config.top_k = False, None, None, None
        config.eos_token_id = None
        config.pad_token_id = self._tokenizer.pad_token_id or 0

    def run(self, items: Sequence[Item], users: int, time_limit_s: float) -> Outcome:
        """Answer the items as they come due, `users` at most in a batch where there are batches."""
        feed = Feed(items, time_limit_s)
        records = []
        prefill_s = decode_s = 0.0
        while batch := feed.wait(min(users, self.batch_size)):
            sent_s = time.monotonic()
            clock = _Clock()
            self._generate([due.item for due in batch], stopping_criteria=StoppingCriteriaList([clock]))
            for due in batch:
                record = _record(due, sent_s, clock.times_s)
                records.append(record)
                prefill_s += record.chunk_s[0] - sent_s
                decode_s += record.end_s - record.chunk_s[0]
                feed.finish(due.item)
        return Outcome(records, [("prefill", prefill_s), ("decode", decode_s)])

    def answer(self, items: Sequence[Item]) -> Outcome:
        """The greedy tokens of each item, with the log-probability of each."""
        answers = []
        for item in items:
            output = self._generate([item], output_logits=True, return_dict_in_generate=True)
            ids = output.sequences[0, -len(output.logits) :]
            logprobs = torch.stack(output.logits)[:, 0].float().log_softmax(dim=-1)
            answers.append(Answer(ids.tolist(), logprobs.gather(1, ids.unsqueeze(1)).squeeze(1).tolist()))
        return Outcome(answers=answers)

    def generate(self, item: Item) -> list[int]:
        """The greedy tokens of one item."""
        output = self._generate([item])
        ids: list[int] = output[0, len(self._prompt(item)) :].tolist()
        return ids

    @torch.inference_mode()
    def _generate(self, items: Sequence[Item], **options: Any) -> Any:
        prompts = [self._prompt(item) for item in items]
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        device = self._model.device
        longest = max(item.output_tokens or 1 for item in items)
        return self._model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=longest, **options
        )

    def _prompt(self, item: Item) -> list[int]:
        if item.token_ids:
            return item.token_ids[0]
        messages = item.messages or (item.body or {})["messages"]
        ids: list[int] = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids


class _Clock(StoppingCriteria):  # type: ignore[misc] # transformers ships no complete types
    """Stops nothing; notes when each token of the batch is there."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.times_s.append(time.monotonic())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _record(due: Due, sent_s: float, times_s: Sequence[float]) -> Any:
    record = due.record(sent_s)
    record.chunk_s = list(times_s[: due.item.output_tokens])
    record.output_tokens = len(record.chunk_s)
    record.end_s = times_s[-1]  # the batch returns as a whole
    return record
