"""GPUs, read through the real nvidia-ml-py from a driver's library whose answers are known."""

from pathlib import Path
from typing import Any

import pytest

from tests.servers.telemetry.conftest import READ, Driver
from tests.services.gpus import H100

ONE = f"""count 1
{H100}0.energy 123456789
0.processes 11:1000+12:24
"""
TWO_WITH_MIG = """count 2
0.uuid GPU-a
0.mig 0
0.utilization 50
0.processes 11:10
1.uuid GPU-b
1.mig 1
1.utilization 50
1.power 90000
1.memory_total 40000
1.memory_used 3000
1.gpm 1
1.gpm.2 10|20
1.mig_max 7
1.mig.0.uuid MIG-x
1.mig.0.memory_total 10000
1.mig.0.memory_used 1000
1.mig.0.processes 12:900
1.mig.2.uuid MIG-z
1.mig.2.memory_total 20000
1.mig.2.memory_used 2000
1.mig.2.processes 13:?
"""
UNKNOWN: dict[str, Any] = {
    "uuid": None,
    "name": None,
    "mig": None,
    "utilization_percent": None,
    "memory_used_bytes": None,
    "memory_total_bytes": None,
    "power_w": None,
    "energy_j": None,
    "temperature_c": None,
    "sm_clock_mhz": None,
    "mem_clock_mhz": None,
    "throttle_reasons": None,
    "processes": None,
    "mig_instances": [],
    "shared": None,
    "model": None,
    "sm_util_percent": None,
    "sm_occupancy_percent": None,
    "dram_bandwidth_percent": None,
}


def test_every_figure_comes_in_its_unit(driver: Driver) -> None:
    [[gpu]] = driver.read(ONE, owners={11: "chat", 12: "chat"})
    assert gpu == {
        **UNKNOWN,
        "index": 0,
        "lost": False,
        "uuid": "GPU-a",
        "name": "NVIDIA H100 80GB HBM3",
        "mig": False,
        "utilization_percent": 37,
        "memory_used_bytes": 1073741824,
        "memory_total_bytes": 85899345920,
        "power_w": 250.5,
        "energy_j": 123456.789,
        "temperature_c": 61,
        "sm_clock_mhz": 1755,
        "mem_clock_mhz": 2619,
        "throttle_reasons": ["sw_power_cap", "sw_thermal_slowdown"],
        "processes": [
            {"pid": 11, "model": "chat", "memory_bytes": 1000},
            {"pid": 12, "model": "chat", "memory_bytes": 24},
        ],
        "shared": False,
        "model": "chat",
    }


@pytest.mark.parametrize(
    ("owners", "shared"),
    [({11: "chat", 12: "embed"}, True), ({11: "chat"}, True), ({}, False)],
    ids=["two models", "a model and a stranger", "strangers"],
)
def test_a_duty_cycle_that_is_not_one_models_own_is_nobodys(
    driver: Driver, owners: dict[int, str], shared: bool
) -> None:
    [[gpu]] = driver.read(ONE, owners=owners)
    assert (gpu["shared"], gpu["model"], gpu["utilization_percent"]) == (shared, None, 37)


def test_an_idle_gpu_belongs_to_nobody(driver: Driver) -> None:
    [[gpu]] = driver.read(ONE.replace("11:1000+12:24", "-"))
    assert (gpu["processes"], gpu["shared"], gpu["model"]) == ([], False, None)


def test_a_gpu_cut_into_instances_has_no_duty_cycle_but_instances_with_their_memory(driver: Driver) -> None:
    first, second = driver.read(TWO_WITH_MIG, times=2, owners={11: "chat", 12: "embed", 13: "vision"})
    assert [gpu["mig"] for gpu in first] == [False, True]
    assert [(gpu["utilization_percent"], gpu["model"]) for gpu in first] == [(50, "chat"), (None, None)]
    assert second[1]["sm_util_percent"] is None
    assert (first[1]["memory_used_bytes"], first[1]["power_w"], first[1]["shared"]) == (3000, 90.0, True)
    assert first[1]["mig_instances"] == [
        {
            "index": 0,
            "uuid": "MIG-x",
            "memory_used_bytes": 1000,
            "memory_total_bytes": 10000,
            "processes": [{"pid": 12, "model": "embed", "memory_bytes": 900}],
        },
        {
            "index": 2,
            "uuid": "MIG-z",
            "memory_used_bytes": 2000,
            "memory_total_bytes": 20000,
            "processes": [{"pid": 13, "model": "vision", "memory_bytes": None}],
        },
    ]


def test_a_gpu_that_does_not_tell_whether_it_is_cut_gives_no_duty_cycle(driver: Driver) -> None:
    [[gpu]] = driver.read(ONE.replace("0.mig 0", "0.mig !999"), owners={11: "chat", 12: "chat"})
    assert (gpu["mig"], gpu["utilization_percent"], gpu["model"]) == (None, None, None)


def test_what_a_gpu_does_not_support_is_none_and_costs_nothing_else(driver: Driver) -> None:
    [[gpu]] = driver.read("count 1\n0.uuid GPU-a\n0.utilization 0\n")
    assert gpu == {**UNKNOWN, "index": 0, "uuid": "GPU-a", "mig": False, "utilization_percent": 0, "lost": False}


@pytest.mark.parametrize("error", ["!4", "!10", "!16", "!999"])
@pytest.mark.parametrize("field", ["uuid", "utilization", "memory_used", "power", "energy", "reasons", "processes"])
def test_no_error_of_a_query_gets_out(driver: Driver, field: str, error: str) -> None:
    lines = [f"0.{field} {error}" if line.startswith(f"0.{field} ") else line for line in ONE.splitlines()]
    [[gpu]] = driver.read("\n".join(lines) + "\n", owners={11: "chat", 12: "chat"})
    [[whole]] = driver.read(ONE, owners={11: "chat", 12: "chat"})
    missing = {key for key, value in whole.items() if gpu[key] != value}
    assert {gpu[key] for key in missing} == {None}
    assert (
        missing
        == {
            "uuid": {"uuid"},
            "utilization": {"utilization_percent"},
            "memory_used": {"memory_used_bytes", "memory_total_bytes"},
            "power": {"power_w"},
            "energy": {"energy_j"},
            "reasons": {"throttle_reasons"},
            "processes": {"processes", "shared", "model"},
        }[field]
    )


def test_a_gpu_that_is_lost_on_the_way_says_so_and_the_other_goes_on(driver: Driver) -> None:
    answers = TWO_WITH_MIG.replace("0.utilization 50", "0.utilization 50|!15|!15")
    before, after, _ = driver.read(answers, times=3)
    assert (before[0]["lost"], before[0]["utilization_percent"]) == (False, 50)
    assert after[0] == {**UNKNOWN, "index": 0, "uuid": "GPU-a", "lost": True}
    assert (after[1]["lost"], after[1]["power_w"]) == (False, 90.0)


@pytest.mark.parametrize(("error", "lost"), [("!15", True), ("!4", False)])
def test_a_gpu_without_a_handle_keeps_its_place(driver: Driver, error: str, lost: bool) -> None:
    [[first, second]] = driver.read(TWO_WITH_MIG + f"0.handle {error}\n")
    assert first == {**UNKNOWN, "index": 0, "lost": lost}
    assert second["uuid"] == "GPU-b"


def test_the_energy_counter_is_given_as_it_is_even_when_it_was_reset(driver: Driver) -> None:
    readings = driver.read(ONE.replace("123456789", "5000|7500|100|18446744073709551615"), times=4)
    assert [gpu["energy_j"] for [gpu] in readings] == [5.0, 7.5, 0.1, 18446744073709551.615]


def test_gpm_compares_each_sample_with_the_one_before(driver: Driver) -> None:
    """A buffer too few or in the wrong place gives another difference. One of metric 10's counters is an error."""
    answers = ONE + "0.gpm 1\n0.gpm.2 100|140|230|231\n0.gpm.3 1|1.5|4|4\n0.gpm.10 5|!3|6|60\n"
    readings = driver.read(answers, times=4)
    assert [_gpm(gpu) for [gpu] in readings] == [
        (None, None, None),
        (40.0, 0.5, None),
        (90.0, 2.5, None),
        (1.0, 0.0, 54.0),
    ]
    assert driver.log() == "shut down, 0 GPM samples left\n"


def test_gpm_samples_that_lie_too_close_together_give_nothing(driver: Driver) -> None:
    readings = driver.read(ONE + "0.gpm 1\n0.gpm.2 100|140|230\n", times=5, step_s=0.06)
    assert [gpu["sm_util_percent"] for [gpu] in readings] == [None, None, 40.0, None, 90.0]


def test_a_gpm_sample_that_fails_is_no_end_of_the_comparison(driver: Driver) -> None:
    answers = ONE + "0.gpm 1\n0.gpm_sample ok|!999|ok|ok\n0.gpm.2 100|140|230\n"
    readings = driver.read(answers, times=4)
    assert [gpu["sm_util_percent"] for [gpu] in readings] == [None, None, None, 90.0]


@pytest.mark.parametrize("support", ["0.gpm 0\n", "0.gpm !13\n", ""])
def test_without_gpm_nothing_is_made_up(driver: Driver, support: str) -> None:
    readings = driver.read(f"{ONE}{support}0.gpm.2 100|140\n", times=2)
    assert [_gpm(gpu) for [gpu] in readings] == [(None, None, None)] * 2


def test_throttle_reasons_are_named_and_a_new_one_keeps_its_number(driver: Driver) -> None:
    [[gpu]] = driver.read(ONE.replace("0x24", "0x8001c9"))
    assert gpu["throttle_reasons"] == [
        "gpu_idle",
        "hw_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
        "display_clock_setting",
        "0x800000",
    ]


@pytest.mark.parametrize(
    ("answers", "says"),
    [("init !9\ncount 1\n", "Driver Not Loaded"), ("init !18\ncount 1\n", "NVML/RM version"), ("count !999\n", "Unkn")],
)
def test_a_driver_that_does_not_answer_gives_no_gpus_and_the_reason(driver: Driver, answers: str, says: str) -> None:
    output = driver.run(READ, answers, "[{}, 2, 1.0]")
    assert output["readings"] == [[], []]
    assert output["error"].startswith("no GPU is measured: ")
    assert says in output["error"]


def test_a_machine_without_a_driver_gives_no_gpus_and_the_reason(tmp_path: Path) -> None:
    """An empty file in its place hides a driver that this machine may have."""
    (tmp_path / "libnvidia-ml.so.1").touch()
    output = Driver(tmp_path / "libnvidia-ml.so.1", tmp_path / "answers").run(READ, "", "[{}, 1, 1.0]")
    assert output["readings"] == [[]]
    assert output["error"].endswith("NVML Shared Library Not Found")


def _gpm(gpu: dict[str, Any]) -> tuple[Any, Any, Any]:
    return gpu["sm_util_percent"], gpu["sm_occupancy_percent"], gpu["dram_bandwidth_percent"]
