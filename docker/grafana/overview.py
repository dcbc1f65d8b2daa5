"""The dashboard to look at first: is everything up, how much is asked, how fast and how often well is it answered."""

from panels import BAD, BUSY, GOOD, QUIET, WARNING, Json, chart, dashboard, figure, row, states
from promql import MODEL, increase, mean, of, quantiles, rate

STATES = {
    "pulling": "purple",
    "starting": BUSY,
    "ready": GOOD,
    "draining": WARNING,
    "asleep": QUIET,
    "unloaded": QUIET,
    "stopped": QUIET,
    "failed": BAD,
}
STATUSES = {"^2": GOOD, "^4": WARNING, "^5": BAD, "^none": QUIET}
FAILED = "instance_model:litport_requests_failed_per_requests:ratio_rate5m"
PER_REQUEST = f"({rate('litport_request_duration_seconds_count')} > 0)"


def _state_numbers() -> str:
    """One number for each state, since a panel draws numbers and not labels."""
    parts = [f"{of('litport_model_state', state=state)} * {number}" for number, state in enumerate(STATES, start=1)]
    return f"max by (model) ({' or '.join(parts)})"


def _share_of_time(series: str) -> str:
    return f"{rate(f'{series}_sum')} / {PER_REQUEST}"


OVERVIEW: Json = dashboard(
    "litport-overview",
    "Litport: overview",
    "Is everything up, how much is asked, and how fast and how often well is it answered?",
    "",
    row(
        "Now",
        figure(
            "Models ready",
            "Models that take traffic. How many there are is in the bars below.",
            "short",
            f"sum({of('litport_model_state', state='ready')})",
        ),
        figure(
            "Required models not ready",
            "While there is one, /ready answers 503. Models that start for the first time count, too.",
            "short",
            f"sum({of('litport_model_required')} * on (instance, model) "
            f"(1 - {of('litport_model_state', state='ready')}))",
            good=GOOD,
            limits=[(1, BAD)],
        ),
        figure(
            "Alerts firing",
            "Litport's alerts of all models. What to do about each is in docs/observability.md.",
            "short",
            'count(ALERTS{alertname=~"Litport.*", alertstate="firing"}) or vector(0)',
            good=GOOD,
            limits=[(1, BAD)],
        ),
        figure(
            "Requests",
            "All requests, refused ones included.",
            "reqps",
            rate("litport_requests_total"),
        ),
        figure(
            "95th percentile of latency",
            "Of all models together, one number for quick and slow ones; the chart below has each. Requests that were "
            "refused count, if their model was known.",
            "s",
            f"histogram_quantile(0.95, {rate('litport_request_duration_seconds_bucket', 'le')})",
        ),
        figure(
            "Tokens out",
            "As the answers' usage says; an answer that was broken off has none.",
            "suffix: tokens/s",
            rate("litport_tokens_total", direction="output"),
        ),
        states(
            "States",
            "The state of each model. Only ready takes traffic; requests to one asleep or unloaded wait for its load.",
            (_state_numbers(), MODEL),
            names=dict(enumerate(STATES.items(), start=1)),
        ),
    ),
    row(
        "Requests",
        chart(
            "Requests by status",
            "none: the client left before an answer began. A stream that broke off keeps the status it began with. "
            "/health and /ready are not counted.",
            "reqps",
            (rate("litport_requests_total", "status"), "{{status}}"),
            stacked=True,
            colours=STATUSES,
        ),
        chart(
            "Share of failures",
            "Requests answered 5xx, over 5 minutes. What clients did wrong (4xx) and refusals of a full queue (429) "
            "are no failures here; a 504 may come of a deadline that the client set.",
            "percentunit",
            (f"max by (model) ({of(FAILED)})", MODEL),
            objective="litport:requests_failed_per_requests:objective",
        ),
        chart(
            "Refused or failed by the front door",
            "Errors that the front door itself gave, by their code. Errors that a model gave are not here, only in the "
            "requests by status.",
            "reqps",
            (rate("litport_rejections_total", "code"), "{{code}}"),
            stacked=True,
        ),
        chart(
            "Latency",
            "From the request's head to the end of its answer, as the front door sees it; the way to the client is "
            "not in it. Of a stream, this grows with the length of the answer. Quantiles are as exact as the "
            "buckets.",
            "s",
            *quantiles("litport_request_duration_seconds", 0.5, 0.95, 0.99),
            width=12,
        ),
        chart(
            "Where the time goes",
            "The mean time of a request: waiting for its turn, within the model's process, and everything that the "
            "front door does itself, reading the body and writing the answer included. Refused requests count as 0 "
            "in the first two.",
            "s",
            (_share_of_time("litport_queue_duration_seconds"), "waiting for its turn"),
            (_share_of_time("litport_upstream_duration_seconds"), "in the model's process"),
            (
                f"clamp_min({rate('litport_request_duration_seconds_sum')}"
                f" - {rate('litport_queue_duration_seconds_sum')}"
                f" - {rate('litport_upstream_duration_seconds_sum')}, 0) / {PER_REQUEST}",
                "front door",
            ),
            width=12,
            stacked=True,
        ),
    ),
    row(
        "Capacity",
        chart(
            "Running",
            "Requests that the models' processes have, and how many they may have. At the limit, the next one waits.",
            "short",
            (f"sum by (model) ({of('litport_requests_running')})", MODEL),
            (f"sum by (model) ({of('litport_requests_running_max')})", f"{MODEL} limit"),
        ),
        chart(
            "Waiting places taken",
            "Share of the waiting places at the front door that are taken. At 100% further requests are refused (429). "
            "Read every few seconds: a shorter burst is not seen.",
            "percentunit",
            (f"max by (model) ({of('instance_model:litport_requests_waiting_per_max:ratio')})", MODEL),
            limit=0.8,
        ),
        chart(
            "Waiting",
            "Requests that wait at the front door, and how many may. The queue within vLLM is on the LLM dashboard.",
            "short",
            (f"sum by (model) ({of('litport_requests_waiting')})", MODEL),
            (f"sum by (model) ({of('litport_requests_waiting_max')})", f"{MODEL} limit"),
        ),
        chart(
            "Time to wait for a turn",
            "Of requests that got their turn; who was refused, or left while waiting, is not in it. The objective is "
            "for the 90th percentile.",
            "s",
            *quantiles("litport_queue_duration_seconds", 0.5, 0.9),
            objective="litport:queue_duration_seconds:objective",
        ),
        chart(
            "Canaries",
            "A model at rest is asked for a token or a prediction by Litport itself, and this is the mean time of the "
            "answer. A busy model is not asked.",
            "s",
            (mean("litport_canary_duration_seconds", "model"), MODEL),
        ),
        chart(
            "Canaries by result",
            "A failed canary is followed by a restart.",
            "cps",
            (rate("litport_canaries_total", "model, result"), f"{MODEL} {{{{result}}}}"),
            colours={"failed$": BAD},
        ),
    ),
    row(
        "Who and what",
        chart(
            "Requests by key",
            "By the key's name; anonymous: no key is needed. Requests without a valid key have none.",
            "reqps",
            (rate("litport_requests_total", "key"), "{{key}}"),
            stacked=True,
        ),
        chart(
            "Tokens by key",
            "Input and output together, by the key's name, as the usage of the answers says.",
            "suffix: tokens/s",
            (rate("litport_tokens_total", "key"), "{{key}}"),
            stacked=True,
        ),
        chart(
            "Requests by route",
            "other: a route that does not exist here.",
            "reqps",
            (rate("litport_requests_total", "route"), "{{route}}"),
            stacked=True,
        ),
        chart(
            "Tokens",
            "As the usage of the answers says. An answer that was broken off, or whose stream has no usage, is "
            "missing.",
            "suffix: tokens/s",
            (rate("litport_tokens_total", "model, direction"), f"{MODEL} {{{{direction}}}}"),
        ),
        chart(
            "Phases of the last start",
            "How long pulling, converting, loading and warming took when each model started last.",
            "s",
            (f"max by (model, phase) ({of('litport_model_start_seconds')})", f"{MODEL} {{{{phase}}}}"),
            width=12,
        ),
        chart(
            "Starts",
            "How often each model became ready within the time shown.",
            "short",
            (increase("litport_model_transitions_total", "model", state="ready"), MODEL),
            width=12,
        ),
        chart(
            "Unloads",
            "Models that were unloaded within the time shown: idle, to make room for another, or by a command.",
            "short",
            (increase("litport_model_unloads_total", "model, reason"), f"{MODEL} {{{{reason}}}}"),
            width=12,
        ),
        chart(
            "New versions",
            "What became of new versions within the time shown: ok, refused before a request, or rolled back.",
            "short",
            (increase("litport_swaps_total", "model, result"), f"{MODEL} {{{{result}}}}"),
            width=12,
        ),
    ),
)
