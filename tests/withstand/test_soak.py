"""A short soak: a sound platform is flat, and leaks of a stranger's are seen, in the process that leaks."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY, serving
from tests.withstand.soak import soak
from tests.withstand.trend import fit

STRANGERS = "tests/services/strangers"
MIB = 2**20


@pytest.mark.long
def test_mixed_traffic_leaves_memory_and_descriptors_as_they_were(tmp_path: Path) -> None:
    targets = ("configs/recipes/echo.yaml", f"{STRANGERS}/streams.py:CountdownAPI", "--models.streams.stream", "true")
    with serving(tmp_path, *targets, "--server.cache_dir", str(tmp_path), timeout_s=60) as platform:
        result = soak(platform, 12, sample_s=0.5)
    print(result.document())
    assert sum(result.requests.values()) > 100
    assert {"invalid JSON: 400", "too large: 413", "streams: left: left"} <= result.requests.keys()
    assert result.verdict() == dict.fromkeys(result.verdict(), True), result.document()


@pytest.mark.long
def test_leaks_are_seen_in_the_processes_that_leak_and_in_no_others(tmp_path: Path) -> None:
    recipe = tmp_path / "leaks.yaml"
    leaks = {"engine": "litserve", "api": f"{REPOSITORY / STRANGERS}/leaks.py:LeaksAPI"}
    models = {what: {**leaks, "init": {"what": what}} for what in ("memory", "descriptors")}
    recipe.write_text(json.dumps({"models": models}))  # JSON is YAML
    with serving(tmp_path, str(recipe), "--server.cache_dir", str(tmp_path), timeout_s=60) as platform:
        result = soak(platform, 8, sample_s=0.3, clients=2)
    assert _names(result.growing()) == {"memory/worker", "memory/sum", "platform/sum"}, result.document()
    assert _names(result.leaking()) == {"descriptors/worker"}, result.document()
    assert not result.verdict()["memory is flat"]
    assert not result.verdict()["descriptors are flat at rest"]


def _names(keys: list[str]) -> set[str]:
    """The keys without their process ids."""
    return {key.partition(" ")[0] for key in keys}


@pytest.mark.parametrize(
    ("shape", "grows"),
    [
        pytest.param(lambda t: 0 * t, False, id="flat"),
        pytest.param(lambda t: 40 * MIB * t, True, id="a steady leak"),
        pytest.param(lambda t: 3 * MIB * t, False, id="less than the allowance"),
        pytest.param(lambda t: 40 * MIB * (t > 0.5), False, id="one step"),
        pytest.param(lambda t: 40 * MIB * (1 - np.exp(-20 * t)), False, id="a cache that fills up"),
        pytest.param(lambda t: -40 * MIB * t, False, id="shrinking"),
        pytest.param(lambda t: 40 * MIB * t + 500 * MIB * (np.arange(len(t)) % 7 == 0), True, id="outliers"),
    ],
)
def test_only_what_grows_and_goes_on_growing_is_called_a_leak(shape, grows: bool) -> None:  # type: ignore[no-untyped-def]
    share = np.linspace(0, 1, 240)
    noise = np.random.default_rng(0).normal(0, MIB / 4, len(share))
    sizes = 100 * MIB + shape(share) + noise
    trend = fit(list(share * 1200), [int(size) for size in sizes])
    assert trend is not None
    assert trend.grows is grows, trend


def test_a_handful_of_points_is_not_judged() -> None:
    assert fit([0.0, 1.0, 2.0], [1, 2, 3]) is None
