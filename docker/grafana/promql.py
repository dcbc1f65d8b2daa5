"""The forms of PromQL that most queries have.

A selector takes only the models that the reader has chosen on the page, unless `model_filter` is False. Further labels
are keywords: `step="predict"` equals, `step="~queue|predict"` matches.
"""

from panels import Query

MODEL = "{{model}}"


def of(series: str, *, model_filter: bool = True, **labels: str) -> str:
    """The series with its selector."""
    parts = ['model=~"$model"'] if model_filter else []
    parts += [
        f'{name}=~"{value[1:]}"' if value.startswith("~") else f'{name}="{value}"' for name, value in labels.items()
    ]
    return f"{series}{{{', '.join(parts)}}}" if parts else series


def rate(series: str, by: str = "", *, model_filter: bool = True, **labels: str) -> str:
    """The increase per second, summed over all labels but `by`."""
    return f"{_sum(by)} (rate({of(series, model_filter=model_filter, **labels)}[$__rate_interval]))"


def increase(series: str, by: str = "", *, model_filter: bool = True, **labels: str) -> str:
    """The increase within the time range of the page, summed over all labels but `by`."""
    return f"{_sum(by)} (increase({of(series, model_filter=model_filter, **labels)}[$__range]))"


def mean(histogram: str, by: str = "") -> str:
    """The mean of a histogram or summary; no value where it has no observation."""
    return f"{rate(f'{histogram}_sum', by)} / ({rate(f'{histogram}_count', by)} > 0)"


def quantiles(histogram: str, *shares: float) -> list[Query]:
    """Quantiles of each model with their legends: 0.95 is p95. They are as exact as the histogram's buckets."""
    buckets = rate(f"{histogram}_bucket", "le, model")
    return [(f"histogram_quantile({share}, {buckets})", f"{MODEL} p{share * 100:g}") for share in shares]


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
