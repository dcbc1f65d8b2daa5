"""Hardware on the page: from a driver's library whose answers are known (a stand-in), and from this machine."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from configs.settings import Telemetry
from servers.metrics.hardware import HardwareCollector, make_sampler
from servers.telemetry import Sampler
from tests.servers.telemetry.conftest import Driver
from tests.services.gpus import H100
from tests.services.page_reader import values

READ = """
import json, os, sys
from prometheus_client import CollectorRegistry, generate_latest
from servers.metrics.hardware import HardwareCollector
from servers.telemetry import Sampler
registry = CollectorRegistry()
with Sampler({"one": os.getpid()}, 0.05) as sampler:
    registry.register(HardwareCollector(sampler))
    print(json.dumps(generate_latest(registry).decode()))
"""
ANSWERS = f"""count 3
{H100}0.energy 123456789
0.processes 1:1000+2:24
1.uuid GPU-b
1.mig 1
1.utilization 50
1.mig_max 7
1.mig.0.uuid MIG-x
1.mig.0.memory_total 10000
1.mig.0.memory_used 600
2.uuid GPU-c
2.mig 0
2.processes 1:1000
"""


def test_every_gpu_is_told_with_what_it_says_and_nothing_else(library: Path, tmp_path: Path) -> None:
    found = values(Driver(library, tmp_path / "answers").run(READ, ANSWERS))
    gpu = {name: value for name, value in found.items() if name.startswith("litport_gpu_")}

    def of(index: int, series: str, **more: str) -> float | None:
        return gpu.get(f"litport_gpu_{series}{sorted({'gpu': str(index), **more}.items())}")

    assert of(0, "info", uuid="GPU-a", name="NVIDIA H100 80GB HBM3", mig="false") == 1
    assert of(0, "utilization_ratio", model="") == 0.37
    assert of(0, "memory_used_bytes") == 2**30
    assert of(0, "power_watts") == 250.5
    assert of(0, "energy_joules_total") == 123456.789
    assert of(0, "temperature_celsius") == 61
    assert of(0, "sm_clock_hertz") == 1.755e9
    assert of(0, "memory_clock_hertz") == 2.619e9
    assert of(0, "throttle_reason", reason="sw_power_cap") == 1
    assert of(0, "process_memory_bytes", model="other") == 1024
    assert of(0, "lost") == 0
    assert of(1, "utilization_ratio", model="") is None  # a duty cycle is not known under MIG
    assert of(1, "instance_memory_used_bytes", mig_instance="0") == 600
    assert of(1, "instance_memory_total_bytes", mig_instance="0") == 10000
    assert of(2, "utilization_ratio", model="") is None  # it does not say
    assert of(2, "power_watts") is None
    assert not [name for name in gpu if "sm_occupancy" in name]


def sampling(interval_s: float, processes: Callable[[], Mapping[str, int]]) -> Sampler:
    sampler = make_sampler(Telemetry(sample_interval_s=interval_s), processes)
    assert sampler is not None
    return sampler


def test_a_platform_without_a_gpu_tells_of_its_processes_and_of_no_gpu() -> None:
    registry = CollectorRegistry()
    with sampling(0.05, lambda: {"one": os.getpid()}) as sampler:
        registry.register(HardwareCollector(sampler))
        found = read(registry)
    one = "[('model', 'one')]"
    assert found[f"litport_model_resident_memory_bytes{one}"] > 1e6
    assert found[f"litport_model_cpu_seconds_total{one}"] > 0
    assert found[f"litport_model_processes{one}"] >= 1
    assert found["litport_model_context_switches_total[('kind', 'voluntary'), ('model', 'one')]"] > 0
    assert found["litport_host_memory_total_bytes[]"] > found["litport_host_memory_available_bytes[]"] > 0
    assert not [name for name in found if "gpu" in name]


def test_what_was_read_long_ago_is_not_told() -> None:
    registry = CollectorRegistry()
    with sampling(0.02, lambda: {"one": os.getpid()}) as sampler:
        registry.register(HardwareCollector(sampler))
    assert "litport_model_processes[('model', 'one')]" in read(registry)
    time.sleep(0.2)  # it samples no more
    assert list(read(registry)) == ["litport_host_memory_total_bytes[]", "litport_host_memory_available_bytes[]"]


def test_reading_goes_on_after_it_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def processes() -> dict[str, int]:
        nonlocal calls
        calls += 1
        if 2 <= calls < 5:
            raise OSError(24, "Too many open files")
        return {"one": os.getpid()}

    with sampling(0.02, processes) as sampler:
        while calls < 8:
            time.sleep(0.01)
        assert time.monotonic() - sampler.samples[-1].t_s < 1
    assert [record.message for record in caplog.records] == [
        "hardware could not be read: OSError: [Errno 24] Too many open files"
    ]


def read(registry: CollectorRegistry) -> dict[str, float]:
    return values(generate_latest(registry).decode())
