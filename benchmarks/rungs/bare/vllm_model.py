"""vLLM without a server: the engine behind `LLM`, with as many requests under way as the load has users.

`LLM.generate` takes all prompts at once, a load has them one by one. So the engine that `LLM` wraps is stepped here,
with the arguments that Litport would give the server, and requests join and leave as they do with users. The engine's
own series tell where the time goes.
"""

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.analysis.measurement import Answer
from benchmarks.load.workload import Item
from benchmarks.rungs.bare.feed import Feed
from benchmarks.rungs.bare.outcome import Outcome
from benchmarks.rungs.series import difference
from clients.record import RequestRecord


class VllmModel:
    """An engine with the arguments of vLLM's command line."""

    def __init__(self, argv: Sequence[str]) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.usage.usage_lib import UsageContext
        from vllm.utils.argparse_utils import FlexibleArgumentParser
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(list(argv))
        engine_args = EngineArgs.from_cli_args(arguments)
        engine_args.disable_log_stats = False  # they are what `get_metrics` reads
        self._engine = LLMEngine.from_engine_args(engine_args, UsageContext.LLM_CLASS)

    def run(self, items: Sequence[Item], users: int, time_limit_s: float) -> Outcome:
        """Answer the items as they come due, at most `users` under way."""
        before = self._series()
        feed = Feed(items, time_limit_s)
        records: list[RequestRecord] = []
        under_way: dict[str, tuple[Item, RequestRecord]] = {}
        while True:
            free = users - len(under_way)
            for due in feed.due(free) if under_way else feed.wait(free):
                name = str(due.item.index)
                under_way[name] = (due.item, due.record(time.monotonic()))
                self._add(name, due.item)
            if not under_way:
                break
            for output in self._engine.step():
                item, record = under_way[output.request_id]
                now_s = time.monotonic()
                tokens = len(output.outputs[0].token_ids)
                if tokens > (record.output_tokens or 0):
                    record.chunk_s.append(now_s)
                    record.output_tokens = tokens
                if output.finished:
                    record.end_s = now_s
                    record.prompt_tokens = len(output.prompt_token_ids or ())
                    record.cached_tokens = output.num_cached_tokens
                    records.append(record)
                    feed.finish(item)
                    del under_way[output.request_id]
        return Outcome(records, series=difference(before, self._series()))

    def answer(self, items: Sequence[Item]) -> Outcome:
        """The greedy tokens of each item, with the log-probability of each."""
        answers = []
        for item in items:
            self._add("answer", item, logprobs=1)
            last_output = None
            while last_output is None:
                last_output = next((output for output in self._engine.step() if output.finished), None)
            ids = list(last_output.outputs[0].token_ids)
            logprobs = [at[token].logprob for at, token in zip(last_output.outputs[0].logprobs, ids, strict=True)]
            answers.append(Answer(ids, logprobs))
        return Outcome(answers=answers)

    def _add(self, name: str, item: Item, logprobs: int | None = None) -> None:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=item.output_tokens, ignore_eos=True, logprobs=logprobs)
        self._engine.add_request(name, self._prompt(item), params)

    def _prompt(self, item: Item) -> Any:
        if item.token_ids:
            return {"prompt_token_ids": item.token_ids[0]}
        messages = item.messages or (item.body or {})["messages"]
        tokenizer = self._engine.get_tokenizer()
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return {"prompt_token_ids": ids}

    def _series(self) -> dict[str, float]:
        series: dict[str, float] = {}
        for metric in self._engine.get_metrics():
            if hasattr(metric, "sum"):
                series[f"{metric.name}_sum"] = metric.sum
                series[f"{metric.name}_count"] = metric.count
            elif hasattr(metric, "value"):
                series[f"{metric.name}_total"] = metric.value
        return series
