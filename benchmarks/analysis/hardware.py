"""What the hardware did during a measurement, as `servers.telemetry` samples it, in the form of `result.json`.

Times are of `time.monotonic()`, in seconds; None is what could not be read. The rung's processes are the model `model`.
"""

from typing import Any

import msgspec

from servers.telemetry.cpu import HostSample, ModelSample
from servers.telemetry.nvml import GpuSample

RUNG = "model"
"""The name by which the sampler knows the processes of a rung."""


class Sample(msgspec.Struct, frozen=True):
    """One moment: `t_s` counts from the start of the measurement."""

    t_s: float
    models: dict[str, ModelSample]
    host: HostSample
    gpus: tuple[GpuSample, ...]

    @property
    def rung(self) -> ModelSample | None:
        """The rung's processes."""
        return self.models.get(RUNG)


class ModelWindow(msgspec.Struct, frozen=True):
    """The processes of a rung over the measurement."""

    cpu_cores: float | None
    max_resident_bytes: int | None
    max_processes: int | None
    voluntary_switches_per_s: float | None
    involuntary_switches_per_s: float | None
    max_gpu_memory_bytes: int | None


class HostWindow(msgspec.Struct, frozen=True):
    """The host over the measurement; percentages are of all cores."""

    cpu_percent: float | None
    steal_percent: float | None
    throttled_s: float | None
    throttled_periods: float | None


class MigWindow(msgspec.Struct, frozen=True):
    """A slice of a GPU over the measurement."""

    index: int
    uuid: str | None
    max_memory_used_bytes: int | None
    memory_total_bytes: int | None


class GpuWindow(msgspec.Struct, frozen=True):
    """A GPU over the measurement; what the fields mean is said in `servers.telemetry.window`."""

    index: int
    uuid: str | None
    name: str | None
    lost: bool
    mig: bool | None
    shared: bool | None
    model: str | None
    utilization_percent: float | None
    power_w: float | None
    energy_j: float | None
    max_memory_used_bytes: int | None
    memory_total_bytes: int | None
    max_temperature_c: int | None
    sm_clock_mhz: float | None
    mem_clock_mhz: float | None
    throttle_reasons: list[str] | None
    sm_util_percent: float | None
    sm_occupancy_percent: float | None
    dram_bandwidth_percent: float | None
    mig_instances: list[MigWindow]


class Window(msgspec.Struct, frozen=True):
    """The hardware over one measurement: `covered_s` is how much of it was sampled, `samples` how many lie inside."""

    start_s: float
    end_s: float
    covered_s: float
    samples: int
    models: dict[str, ModelWindow]
    host: HostWindow
    gpus: list[GpuWindow]
    nvml_error: str | None

    @property
    def rung(self) -> ModelWindow | None:
        """The rung's processes."""
        return self.models.get(RUNG)


def window_of(summary: dict[str, Any]) -> Window:
    """The window that `Sampler.summary` describes."""
    return msgspec.convert(summary, Window)
