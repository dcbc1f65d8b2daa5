"""The dashboard of the generic models that LitServe runs: what clients see, its steps, and its batches."""

from panels import Json, chart, dashboard, row
from promql import MODEL, mean, of, quantiles, rate

SECONDS, REQUESTS = "litserve_step_seconds_total", "litserve_step_requests_total"
STEPS = ("receive", "queue", "batch_wait", "decode", "predict", "encode")


def _step(step: str, by: str = "") -> str:
    """The mean time that a request spends in a step."""
    return f"{rate(SECONDS, by, step=step)} / ({rate(REQUESTS, by, step=step)} > 0)"


GENERIC: Json = dashboard(
    "litport-generic",
    "Litport: generic models",
    "Models in LitServe: what clients see, where the time of a request goes, and how batches fill.",
    '{engine="litserve"}',
    row(
        "What a client sees, at the front door",
        chart(
            "Requests by status",
            "none: the client left before an answer began.",
            "reqps",
            (rate("litport_requests_total", "model, status"), f"{MODEL} {{{{status}}}}"),
        ),
        chart(
            "Latency",
            "From the request's head to the end of its answer. Quantiles are as exact as the buckets.",
            "s",
            *quantiles("litport_request_duration_seconds", 0.5, 0.95, 0.99),
        ),
        chart(
            "Running and waiting",
            "Running: the model's process has them, be it in a batch or in its queue. Waiting: at the front door.",
            "short",
            (f"sum by (model) ({of('litport_requests_running')})", f"{MODEL} running"),
            (f"sum by (model) ({of('litport_requests_waiting')})", f"{MODEL} waiting"),
        ),
    ),
    row(
        "Where the time goes",
        chart(
            "Where the time goes: $model",
            "Means of a request, step after step: received, waiting for a worker, waiting for its batch to fill, "
            "decoded, predicted, encoded, and sent back. Each request counts with the whole of its batch's time, "
            "since that is what it waits for. The canaries are in it. Time at the front door is not.",
            "s",
            *((_step(step), step.replace("_", " ")) for step in STEPS),
            (f"clamp_min({_step('http')} - ({' + '.join(_step(step) for step in STEPS)}), 0)", "way back"),
            width=12,
            stacked=True,
            per_model=True,
        ),
    ),
    row(
        "Throughput and batches",
        chart(
            "Predictions",
            "Requests that went through predict, the canaries included.",
            "reqps",
            (rate(REQUESTS, "model", step="predict"), MODEL),
        ),
        chart(
            "Size of a batch",
            "The mean. Near 1 under load, batches do not fill: batch_timeout_s may be too short. At max_batch_size, "
            "they are full.",
            "short",
            (mean("litserve_batch_size", "model"), MODEL),
        ),
        chart(
            "Batches",
            "Batches a second; a model without batches counts each request as one.",
            "cps",
            (rate("litserve_batch_size_count", "model"), MODEL),
        ),
        chart(
            "Time to predict",
            "The mean time of predict, for the whole batch.",
            "s",
            (_step("predict", "model"), MODEL),
        ),
        chart(
            "Share of waiting",
            "Share of its time within LitServe that a request waits for a worker or for its batch. High: more "
            "workers or larger batches may help, or the hardware is full.",
            "percentunit",
            (
                f"{rate(SECONDS, 'model', step='~queue|batch_wait')} / ({rate(SECONDS, 'model', step='http')} > 0)",
                MODEL,
            ),
            most=1,
        ),
        chart(
            "Workers' time in predict",
            "How many workers are in predict on average: seconds of predict a second, each batch counted once. At the "
            "number of workers, they are full. It says nothing of how much of the hardware predict uses.",
            "short",
            (
                f"{rate(SECONDS, 'model', step='predict')} / ({mean('litserve_batch_size', 'model')})",
                MODEL,
            ),
        ),
    ),
)
