"""How busy the hardware is: processes, host and GPUs, sampled in the background, for benchmarks and the platform."""

from servers.telemetry.sampler import Sample, Sampler

__all__ = ["Sample", "Sampler"]
