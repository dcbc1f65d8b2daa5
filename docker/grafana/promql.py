"""The few forms of PromQL that most queries have.

Selectors are of the models that are chosen on the page, unless `chosen` is False. Further labels are keywords:
`step="predict"` equals, `step="~queue|predict"` matches.
"""

from panels import Query

MODEL = "{{model}}"


def of(series: str, *, chosen: bool = True, **labels: str) -> str:
    """The series with its selector."""
    parts = ['model=~"$model"'] if chosen else []
    parts += [
        f'{name}=~"{value[1:]}"' if value.startswith("~") else f'{name}="{value}"' for name, value in labels.items()
    ]
    return f"{series}{{{', '.join(parts)}}}" if parts else series


def rate(series: str, by: str = "", *, chosen: bool = True, **labels: str) -> str:
    """How much is added a second, summed over all labels but `by`."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({of(series, chosen=chosen, **labels)}[$__rate_interval]))"


def increase(series: str, by: str = "", *, chosen: bool = True, **labels: str) -> str:
    """How much was added within the time shown, summed over all labels but `by`."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (increase({of(series, chosen=chosen, **labels)}[$__range]))"


def mean(histogram: str, by: str = "") -> str:
    """The mean of what a histogram or summary has seen; nothing where it saw nothing."""
    return f"{rate(f'{histogram}_sum', by)} / ({rate(f'{histogram}_count', by)} > 0)"


def quantiles(histogram: str, *shares: float) -> list[Query]:
    """Quantiles of each model with their legends: 0.95 is p95. They are as exact as the histogram's buckets."""
    buckets = rate(f"{histogram}_bucket", "le, model")
    return [(f"histogram_quantile({share}, {buckets})", f"{MODEL} p{share * 100:g}") for share in shares]
