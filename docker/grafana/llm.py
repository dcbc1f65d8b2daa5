"""The dashboard of the language models that vLLM runs: what clients see, where the time goes, and vLLM's insides."""

from panels import Json, chart, dashboard, row
from promql import MODEL, mean, of, quantiles, rate

IN_VLLM = " + ".join(f"{mean(f'vllm:request_{part}_time_seconds')}" for part in ("queue", "prefill", "decode"))

LLM: Json = dashboard(
    "litport-llm",
    "Litport: LLMs",
    "Language models in vLLM: what clients see, where the time of a request goes, and how vLLM is doing inside.",
    '{engine="vllm"}',
    row(
        "What a client sees, at the front door",
        chart(
            "Time to first token",
            "From the request's head to the first event of the stream, waiting included. Only of streamed answers; the "
            "first event may be a role without a token. The objective is for the 95th percentile.",
            "s",
            *quantiles("litport_time_to_first_token_seconds", 0.5, 0.95, 0.99),
            objective="litport:time_to_first_token_seconds:objective",
        ),
        chart(
            "Time between chunks",
            "Only of streamed answers. A chunk is mostly one token, but may hold several.",
            "s",
            *quantiles("litport_inter_chunk_duration_seconds", 0.5, 0.95, 0.99),
        ),
        chart(
            "End to end",
            "From the request's head to the end of the answer. It grows with the answer's length, so it compares only "
            "where answers are alike.",
            "s",
            *quantiles("litport_request_duration_seconds", 0.5, 0.95, 0.99),
        ),
        chart(
            "Tokens",
            "As the usage of the answers says; what was broken off is missing here, and is in vLLM's own count below.",
            "suffix: tokens/s",
            (rate("litport_tokens_total", "model, direction"), f"{MODEL} {{{{direction}}}}"),
        ),
        chart(
            "Tokens of a request",
            "Mean lengths, as vLLM counts them. Much of what changes on this page does so because these do.",
            "short",
            (mean("vllm:request_prompt_tokens", "model"), f"{MODEL} prompt"),
            (mean("vllm:request_generation_tokens", "model"), f"{MODEL} answer"),
        ),
        chart(
            "Ends of answers",
            "stop: the model ended by itself; length: a limit ended it; abort: the client left, or the deadline "
            "passed.",
            "reqps",
            (rate("vllm:request_success_total", "model, finished_reason"), f"{MODEL} {{{{finished_reason}}}}"),
            stacked=True,
        ),
    ),
    row(
        "Where the time goes",
        chart(
            "Where the time goes: $model",
            "Means of a request, from the bottom: waiting for a turn at the front door, waiting within vLLM, prefill "
            "(the prompt), decode (the answer), and the rest of the time in the model's process: reading, tokenising "
            "and sending. The canaries count in vLLM's parts; they are short. Means of the same stretch of time, not "
            "of the same requests: where load changes quickly they do not add up exactly.",
            "s",
            (mean("litport_queue_duration_seconds"), "front door's queue"),
            (mean("vllm:request_queue_time_seconds"), "vLLM's queue"),
            (mean("vllm:request_prefill_time_seconds"), "prefill"),
            (mean("vllm:request_decode_time_seconds"), "decode"),
            (f"clamp_min({mean('litport_upstream_duration_seconds')} - ({IN_VLLM}), 0)", "rest of vLLM"),
            width=12,
            stacked=True,
            per_model=True,
        ),
    ),
    row(
        "Queues and batches",
        chart(
            "Running and waiting within vLLM",
            "Running: in a batch now. Waiting: vLLM has them and no room for them, mostly because its KV cache is "
            "full. Those that wait at the front door are not here.",
            "short",
            (f"sum by (model) ({of('vllm:num_requests_running')})", f"{MODEL} running"),
            (f"sum by (model) ({of('vllm:num_requests_waiting')})", f"{MODEL} waiting"),
        ),
        chart(
            "Waiting within vLLM",
            "From its arrival in vLLM until it is first in a batch.",
            "s",
            *quantiles("vllm:request_queue_time_seconds", 0.5, 0.95),
        ),
        chart(
            "Waiting anywhere",
            "At the front door and within vLLM together; the alert of an idle GPU looks at this.",
            "short",
            (f"sum by (model) ({of('instance_model:requests_waiting:sum')})", MODEL),
        ),
        chart(
            "Tokens of a step",
            "Mean number of tokens that one step of the engine computes, prompts included: how full batches are. "
            "More is better use of the hardware, and a slower step.",
            "short",
            (mean("vllm:iteration_tokens_total", "model"), MODEL),
        ),
        chart(
            "Steps",
            "Steps of the engine a second.",
            "cps",
            (rate("vllm:iteration_tokens_total_count", "model"), MODEL),
        ),
        chart(
            "Tokens computed",
            "By vLLM's own count: prompts as they are taken in, those found in the prefix cache included, and tokens "
            "as they are generated, whether the answer ends well or not. The canaries are in it.",
            "suffix: tokens/s",
            (rate("vllm:prompt_tokens_total", "model"), f"{MODEL} prompt"),
            (rate("vllm:generation_tokens_total", "model"), f"{MODEL} generation"),
        ),
    ),
    row(
        "KV cache",
        chart(
            "KV cache in use",
            "Share of the blocks that running requests hold. Near 100% requests wait or are preempted. Blocks that are "
            "only kept for the prefix cache count as free.",
            "percentunit",
            (f"max by (model) ({of('instance_model:vllm_kv_cache_usage_perc:max')})", MODEL),
            most=1,
            limit=0.95,
        ),
        chart(
            "Prefix cache: share of hits",
            "Share of the prompts' tokens that need not be computed since they were before. 0 is normal where no two "
            "prompts begin alike.",
            "percentunit",
            (
                f"{rate('vllm:prefix_cache_hits_total', 'model')}"
                f" / ({rate('vllm:prefix_cache_queries_total', 'model')} > 0)",
                MODEL,
            ),
            most=1,
        ),
        chart(
            "Preemptions",
            "Requests thrown out of the batch as the KV cache was full; what they had is computed again. Anything "
            "but 0 for long means too many requests at a time, or too little memory.",
            "cps",
            (rate("vllm:num_preemptions_total", "model"), MODEL),
        ),
    ),
)
