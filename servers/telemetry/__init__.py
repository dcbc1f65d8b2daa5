"""How busy the hardware is: processes, host and GPUs, sampled in the background for benchmarks and the platform."""

from servers.telemetry.sample import Sample
from servers.telemetry.sampler import Sampler

__all__ = ["Sample", "Sampler"]
