"""GPM, the counters of Hopper and newer GPUs: how much of the chip works, while a duty cycle says only that some does.

NVML computes each metric from two samples of the counters. On a GPU without GPM every metric is None. `ask` is here, as
this module and `nvml` both use it.

Source: NVIDIA's NVML API reference, GPM functions.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import pynvml

# Two samples must lie further apart than this (NVML API reference, nvmlGpmMetricsGet).
_APART_S = 0.1
_METRICS = (
    pynvml.NVML_GPM_METRIC_SM_UTIL,
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY,
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL,
)
_T = TypeVar("_T")


class GpmMetrics(NamedTuple):
    """Means over the time between two samples, percent: busy SMs, active warps of the most possible, DRAM bandwidth."""

    sm_util_percent: float | None = None
    sm_occupancy_percent: float | None = None
    dram_bandwidth_percent: float | None = None


class Gpm:
    """The two sample buffers of one GPU: each reading overwrites the older one and swaps the two."""

    def __init__(self, handle: Any) -> None:
        support = ask(pynvml.nvmlGpmQueryDeviceSupport, handle)
        self._handle = handle
        self._buffers: list[Any] = []
        self._read_s: float | None = None
        if support is not None and support.isSupportedDevice:
            buffers = [ask(pynvml.nvmlGpmSampleAlloc) for _ in range(2)]
            self._buffers = [buffer for buffer in buffers if buffer is not None]

    def read(self, t_s: float) -> GpmMetrics:
        """The metrics since the last read; all None in the first, and in one that comes within 0.1 s."""
        if len(self._buffers) < 2 or (self._read_s is not None and t_s - self._read_s <= _APART_S):
            return GpmMetrics()
        if ask(pynvml.nvmlGpmSampleGet, self._handle, self._buffers[0]) is None:
            self._read_s = None
            return GpmMetrics()
        self._buffers.reverse()
        first, self._read_s = self._read_s is None, t_s
        return GpmMetrics() if first else self._compare()

    def close(self) -> None:
        """Free the buffers."""
        for buffer in self._buffers:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlGpmSampleFree(buffer)
        self._buffers = []

    def _compare(self) -> GpmMetrics:
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(_METRICS)
        request.sample1, request.sample2 = self._buffers
        for index, number in enumerate(_METRICS):
            request.metrics[index].metricId = number
        if ask(pynvml.nvmlGpmMetricsGet, request) is None:
            return GpmMetrics()
        return GpmMetrics(*(_value(request.metrics[index]) for index in range(len(_METRICS))))


def ask(query: Callable[..., _T], *arguments: Any) -> _T | None:
    """The answer of NVML, or None where it has none. Raises pynvml.NVMLError_GpuIsLost for a GPU that is gone."""
    try:
        return query(*arguments)
    except pynvml.NVMLError_GpuIsLost:
        raise
    except pynvml.NVMLError:
        return None


def _value(metric: Any) -> float | None:
    is_valid = metric.nvmlReturn == pynvml.NVML_SUCCESS and math.isfinite(metric.value)
    return float(metric.value) if is_valid else None
