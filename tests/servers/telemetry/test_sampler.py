"""The sampler: a thread that reads until it is told to stop, on this machine and on one with GPUs."""

import json
import os
import threading
import time
from collections.abc import Mapping

import pytest

from servers.telemetry import Sampler
from tests.servers.telemetry.conftest import Driver

ON_GPUS = """
import json, os, sys, time
from servers.telemetry import Sampler

with Sampler({"chat": os.getpid()}, interval_s=0.02) as sampler:
    while len(sampler.samples) < 5: time.sleep(0.01)
samples = sampler.samples
print(json.dumps({"summary": sampler.summary(samples[0].t_s, samples[-1].t_s), "series": sampler.series(),
                  "error": sampler.nvml_error, "pid": os.getpid()}))
"""


def test_it_samples_from_entering_to_leaving() -> None:
    before_s = time.monotonic()
    with Sampler({"tests": os.getpid()}, interval_s=60) as sampler:
        first_samples, left_s = sampler.samples, time.monotonic()
    first, last = sampler.samples
    assert first_samples == (first,)
    assert before_s <= first.t_s <= left_s <= last.t_s <= time.monotonic()
    assert first.models["tests"].voluntary_switches is not None
    assert last.models["tests"].voluntary_switches is not None


def test_the_work_of_this_process_shows() -> None:
    with Sampler({"tests": os.getpid()}, interval_s=0.05) as sampler:
        start_s, start = time.monotonic(), time.process_time()
        while time.process_time() - start < 0.2 or len(sampler.samples) < 3:
            pass
        end_s = time.monotonic()
    summary = sampler.summary(start_s, end_s)
    tests = summary["models"]["tests"]
    assert 0.1 < tests["cpu_cores"] * (end_s - start_s) < 30
    assert tests["max_resident_bytes"] > 2**20
    assert tests["max_processes"] >= 1
    assert tests["voluntary_switches_per_s"] >= 0
    assert summary["covered_s"] == pytest.approx(end_s - start_s)


def test_everything_it_says_is_ready_for_json() -> None:
    with Sampler({"tests": os.getpid()}) as sampler:
        pass
    first, last = sampler.series()[0], sampler.series()[-1]
    assert set(first) == {"t_s", "models", "host", "gpus"}
    assert set(first["models"]["tests"]) > {"cpu_s", "resident_bytes", "processes"}
    json.dumps([sampler.series(), sampler.summary(first["t_s"], last["t_s"])], allow_nan=False)


def test_the_models_may_change_while_it_runs() -> None:
    models: dict[str, int] = {}
    threads = set()

    def processes() -> Mapping[str, int]:
        threads.add(threading.current_thread().name)
        return dict(models)

    with Sampler(processes, interval_s=60) as sampler:
        models["late"] = os.getpid()
    assert [list(sample.models) for sample in sampler.samples] == [[], ["late"]]
    assert "telemetry" in threads


def test_what_fails_in_its_thread_is_raised_on_leaving() -> None:
    failed = threading.Event()

    def processes() -> Mapping[str, int]:
        if threading.current_thread() is threading.main_thread():
            return {}
        failed.set()
        raise LookupError("no models today")

    with pytest.raises(LookupError, match="no models today"), Sampler(processes, interval_s=0.01):
        failed.wait(30)


def test_a_failure_of_the_block_is_not_covered_by_its_own() -> None:
    calls = iter([{"tests": os.getpid()}])
    with pytest.raises(KeyError), Sampler(lambda: next(calls), interval_s=60):
        raise KeyError("the block's")


def test_it_keeps_only_the_latest_when_told_to() -> None:
    with Sampler({}, interval_s=0.005, max_samples=3) as sampler:
        first = sampler.samples[0]
        while first in sampler.samples:
            time.sleep(0.005)
    assert len(sampler.samples) == 3
    assert sampler.samples[0].t_s < sampler.samples[1].t_s < sampler.samples[2].t_s


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="interval_s must be above 0, got 0"):
        Sampler({}, interval_s=0)


def test_the_gpus_are_in_the_samples_and_their_work_is_its_models(driver: Driver) -> None:
    """The process names itself as the GPU's user: its id is not known before, so the library is told a stranger's."""
    answers = (
        "count 2\n0.name NVIDIA L4\n0.mig 0\n0.utilization 40|60\n0.energy 1000|4000\n0.processes 1:64\n"
        "0.power 70000\n1.mig 0\n1.power !15\n"
    )
    output = driver.run(ON_GPUS, answers)
    first, second = output["summary"]["gpus"]
    assert output["error"] is None
    assert output["summary"]["nvml_error"] is None
    assert (first["name"], first["power_w"], first["lost"]) == ("NVIDIA L4", 70.0, False)
    assert first["energy_j"] == pytest.approx(3.0)
    assert (first["shared"], first["model"]) == (False, None)
    assert (second["lost"], second["power_w"], second["model"]) == (True, None, None)
    assert [sample["gpus"][0]["utilization_percent"] for sample in output["series"]][:3] == [40, 60, 60]
    assert driver.log() == "shut down, 0 GPM samples left\n"


def test_without_a_driver_it_says_so_once_and_measures_the_rest(driver: Driver) -> None:
    output = driver.run(ON_GPUS, "init !9\n")
    assert output["error"] == output["summary"]["nvml_error"]
    assert "Driver Not Loaded" in output["error"]
    assert {len(sample["gpus"]) for sample in output["series"]} == {0}
    assert output["summary"]["gpus"] == []
    assert output["summary"]["models"]["chat"]["max_resident_bytes"] > 2**20


def test_the_drivers_library_is_not_looked_for_before_sampling(driver: Driver) -> None:
    program = (
        "import json, sys, servers.telemetry; print(json.dumps([n for n in ('pynvml', 'psutil') if n in sys.modules]))"
    )
    assert driver.run(program, "") == []
