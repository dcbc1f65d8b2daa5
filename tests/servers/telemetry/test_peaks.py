"""Against the hardware's limits: worked out by hand."""

import pytest

from servers.telemetry.peaks import PEAKS, cost_per_million_tokens, mbu, mfu, peak, tokens_per_joule


@pytest.mark.parametrize(
    ("name", "flops_per_s", "memory_bytes_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12, 3.35e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 2039e9),
        ("A100-SXM4-40GB", 312e12, 1555e9),
        ("Tesla T4", 65e12, 320e9),
    ],
)
def test_a_gpu_is_found_by_the_name_that_its_driver_gives(
    name: str, flops_per_s: float, memory_bytes_per_s: float
) -> None:
    limits = peak(name)
    assert limits is not None
    assert (limits.flops_per_s, limits.memory_bytes_per_s) == (flops_per_s, memory_bytes_per_s)


@pytest.mark.parametrize("name", [None, "", "NVIDIA A10G", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100"])
def test_a_gpu_that_only_looks_like_one_of_the_table_is_unknown(name: str | None) -> None:
    assert peak(name) is None
    assert mbu(name, weight_bytes=1, kv_bytes=1, step_s=1) is None


def test_every_peak_names_its_source() -> None:
    assert all(entry.source.startswith("NVIDIA ") for entry in PEAKS.values())
    assert all(50e12 < entry.flops_per_s < 5e15 for entry in PEAKS.values())
    assert all(2e11 < entry.memory_bytes_per_s < 1e13 for entry in PEAKS.values())


def test_mfu_counts_the_weights_and_the_attention() -> None:
    """2 x 1e9 x 1000 = 2e12; 4 x 10 x 8 x 64 x 1e6 = 2.048e10; an L4 does 121e12 a second."""
    used = mfu(
        "NVIDIA L4",
        active_parameters=1e9,
        tokens=1000,
        layers=10,
        heads=8,
        head_dim=64,
        attention_pairs=1e6,
        elapsed_s=2,
    )
    assert used == pytest.approx((2e12 + 2.048e10) / (2 * 121e12))


def test_mfu_on_two_gpus_is_half() -> None:
    def used(devices: int) -> float:
        fraction = mfu(
            "NVIDIA L4",
            active_parameters=1e9,
            tokens=1000,
            layers=1,
            heads=1,
            head_dim=1,
            attention_pairs=0,
            elapsed_s=1,
            devices=devices,
        )
        assert fraction is not None
        return fraction

    assert used(2) == pytest.approx(used(1) / 2)


@pytest.mark.parametrize(
    ("tokens", "attention_pairs", "elapsed_s"), [(None, 1.0, 1.0), (1.0, None, 1.0), (1.0, 1.0, None), (1.0, 1.0, 0.0)]
)
def test_mfu_of_what_was_not_measured_is_unknown(
    tokens: float | None, attention_pairs: float | None, elapsed_s: float | None
) -> None:
    used = mfu(
        "NVIDIA L4",
        active_parameters=1,
        tokens=tokens,
        layers=1,
        heads=1,
        head_dim=1,
        attention_pairs=attention_pairs,
        elapsed_s=elapsed_s,
    )
    assert used is None


def test_mbu_counts_what_a_step_must_read() -> None:
    """14 GB of weights and 1 GB of keys and values in 0.1 s: 150 GB/s of an L4's 300."""
    assert mbu("NVIDIA L4", weight_bytes=14e9, kv_bytes=1e9, step_s=0.1) == pytest.approx(0.5)
    assert mbu("NVIDIA L4", weight_bytes=14e9, kv_bytes=1e9, step_s=0.1, devices=2) == pytest.approx(0.25)
    assert mbu("NVIDIA L4", weight_bytes=14e9, kv_bytes=None, step_s=0.1) is None
    assert mbu("NVIDIA L4", weight_bytes=14e9, kv_bytes=0, step_s=None) is None


def test_tokens_per_joule_and_cost() -> None:
    assert tokens_per_joule(3000, 1500) == 2.0
    assert cost_per_million_tokens(3.6, 500) == pytest.approx(2.0)


@pytest.mark.parametrize(("first", "second"), [(None, 1.0), (1.0, None), (1.0, 0.0)])
def test_what_is_unknown_has_no_rate_and_no_cost(first: float | None, second: float | None) -> None:
    assert tokens_per_joule(first, second) is None
    assert cost_per_million_tokens(first, second) is None
