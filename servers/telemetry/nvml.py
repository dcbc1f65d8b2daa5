"""The GPUs, as NVIDIA's management library (NVML, through nvidia-ml-py) sees them.

One reading queries everything that a report needs to say how busy a GPU was and for which model. A query that a GPU or
driver does not support gives None for its field; a lost GPU gives an entry with `lost`; a machine without a driver has
no GPUs. A model that shares its GPU gets no duty cycle. No setting of a GPU is changed.

Source of units and meanings: NVIDIA's NVML API reference.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pynvml

from servers.telemetry.gpm import Gpm, GpmMetrics, ask

_REASONS = {
    pynvml.nvmlClocksEventReasonGpuIdle: "gpu_idle",
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "applications_clocks_setting",
    pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "display_clock_setting",
}


@dataclass(frozen=True)
class GpuProcess:
    """A compute process on a GPU. `model` is None for a process that belongs to none of our models.

    In a container, NVML may give the host's process ids, which do not exist inside; those belong to no model either.
    """

    pid: int
    model: str | None
    memory_bytes: int | None


@dataclass(frozen=True)
class MigSample:
    """One MIG instance: a slice of a GPU with memory of its own. NVML knows no duty cycle for it."""

    index: int
    uuid: str | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    processes: tuple[GpuProcess, ...] | None


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment; None means that a value could not be read.

    `utilization_percent` is a duty cycle: the share of NVML's last sample period (1/6 to 1 s) in which a kernel ran,
    even if it filled little of the GPU. It is None while MIG is on. `power_w` is a mean over a second on most GPUs.
    `energy_j` counts from when the driver was loaded. It has 64 bits of millijoules, which 1 kW fills in 580 million
    years, so a counter that fell did not wrap but was reset, and its growth in between is unknown.
    The last three are GPM metrics (Hopper and newer), means over the time since the reading before.
    `shared` says that several models, or a model and another program, use the GPU. `model` is the one to which the duty
    cycle belongs, and None where the GPU is shared, used by another program, or idle.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    lost: bool = False
    mig: bool | None = None
    utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    mem_clock_mhz: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    processes: tuple[GpuProcess, ...] | None = None
    mig_instances: tuple[MigSample, ...] = ()
    shared: bool | None = None
    model: str | None = None
    sm_util_percent: float | None = None
    sm_occupancy_percent: float | None = None
    dram_bandwidth_percent: float | None = None


class Gpus:
    """The GPUs of this machine, from construction to `close`. `error` says why there are none, where NVML failed."""

    def __init__(self) -> None:
        self.error: str | None = None
        self._devices: list[_Device] = []
        self._open = False
        try:
            pynvml.nvmlInit()
            self._open = True
            self._devices = [_Device(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as problem:
            self.error = f"no GPU is measured: {problem}"

    def read(self, owners: Mapping[int, str], t_s: float) -> tuple[GpuSample, ...]:
        """One sample a GPU, by index. `owners` maps process ids to models; `t_s` is the time on a monotonic clock."""
        return tuple(device.read(owners, t_s) for device in self._devices)

    def close(self) -> None:
        """End the reading and free NVML's resources. Can be called twice."""
        for device in self._devices:
            device.close()
        self._devices = []
        if self._open:
            self._open = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


class _Device:
    def __init__(self, index: int) -> None:
        self._index = index
        self._uuid: str | None = None
        self._name: str | None = None
        self._handle: Any = None
        self._lost = False
        self._gpm: Gpm | None = None
        try:
            self._handle = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
        except pynvml.NVMLError_GpuIsLost:
            self._lost = True

    def read(self, owners: Mapping[int, str], t_s: float) -> GpuSample:
        if self._handle is None:
            return GpuSample(self._index, lost=self._lost)
        try:
            return self._measure(self._handle, owners, t_s)
        except pynvml.NVMLError_GpuIsLost:
            return GpuSample(self._index, self._uuid, self._name, lost=True)

    def close(self) -> None:
        if self._gpm is not None:
            self._gpm.close()

    def _measure(self, handle: Any, owners: Mapping[int, str], t_s: float) -> GpuSample:
        self._uuid = self._uuid or ask(pynvml.nvmlDeviceGetUUID, handle)
        self._name = self._name or ask(pynvml.nvmlDeviceGetName, handle)
        mig = _mig(handle)
        instances = _instances(handle, owners) if mig else ()
        processes = _union([instance.processes for instance in instances]) if mig else _processes(handle, owners)
        utilization = ask(pynvml.nvmlDeviceGetUtilizationRates, handle) if mig is False else None
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
        models = None if processes is None else {process.model for process in processes}
        gpm = self._gpm_metrics(handle, t_s) if mig is False else GpmMetrics()
        return GpuSample(
            index=self._index,
            uuid=self._uuid,
            name=self._name,
            mig=mig,
            utilization_percent=None if utilization is None else utilization.gpu,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            power_w=_thousandths(ask(pynvml.nvmlDeviceGetPowerUsage, handle)),
            energy_j=_thousandths(ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)),
            temperature_c=ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
            mem_clock_mhz=ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
            throttle_reasons=_reasons(ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)),
            processes=processes,
            mig_instances=instances,
            shared=None if models is None else len(models) > 1,
            model=next(iter(models)) if models is not None and len(models) == 1 and mig is False else None,
            **gpm._asdict(),
        )

    def _gpm_metrics(self, handle: Any, t_s: float) -> GpmMetrics:
        if self._gpm is None:
            self._gpm = Gpm(handle)
        return self._gpm.read(t_s)


def _mig(handle: Any) -> bool | None:
    """Whether the GPU is divided into instances; None where NVML does not tell."""
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False  # a GPU, or a driver, that has no MIG
    except pynvml.NVMLError_GpuIsLost:
        raise
    except pynvml.NVMLError:
        return None


def _instances(handle: Any, owners: Mapping[int, str]) -> tuple[MigSample, ...]:
    samples = []
    for index in range(ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        instance = ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if instance is not None:  # the indexes have gaps
            memory = ask(pynvml.nvmlDeviceGetMemoryInfo, instance, pynvml.nvmlMemory_v2)
            used_bytes, total_bytes = (None, None) if memory is None else (memory.used, memory.total)
            uuid = ask(pynvml.nvmlDeviceGetUUID, instance)
            samples.append(MigSample(index, uuid, used_bytes, total_bytes, _processes(instance, owners)))
    return tuple(samples)


def _processes(handle: Any, owners: Mapping[int, str]) -> tuple[GpuProcess, ...] | None:
    entries = ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if entries is None:
        return None
    return tuple(GpuProcess(entry.pid, owners.get(entry.pid), entry.usedGpuMemory) for entry in entries)


def _union(parts: Iterable[tuple[GpuProcess, ...] | None]) -> tuple[GpuProcess, ...] | None:
    processes: list[GpuProcess] = []
    for part in parts:
        if part is None:
            return None
        processes.extend(part)
    return tuple(processes)


def _reasons(bits: int | None) -> tuple[str, ...] | None:
    """The names of the bits that are set; a bit without a name in nvidia-ml-py gives its number."""
    if bits is None:
        return None
    return tuple(_REASONS.get(1 << i, f"{1 << i:#x}") for i in range(bits.bit_length()) if bits >> i & 1)


def _thousandths(value: int | None) -> float | None:
    return None if value is None else value / 1000
