"""One reading of everything that telemetry measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servers.telemetry.cpu import HostSample, ModelSample

if TYPE_CHECKING:
    from servers.telemetry.nvml import GpuSample


@dataclass(frozen=True)
class Sample:
    """What was measured at one moment, `t_s` on the clock of time.monotonic(): models by name, host and GPUs."""

    t_s: float
    models: Mapping[str, ModelSample]
    host: HostSample
    gpus: "tuple[GpuSample, ...]"
