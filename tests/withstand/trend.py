"""Whether a row of measurements grows: a line that a few outliers cannot bend, and a verdict that a step cannot fool.

The line is Theil and Sen's: the median of the slopes between all pairs. What is called growth has to be more than the
noise and more than an allowance, and to go on in both halves: a cache that fills up or an allocator that takes another
arena is a step in one of them. It refuses to judge a handful of points.
"""

from dataclasses import dataclass

import numpy as np

_LEAST_POINTS = 8
_MOST_POINTS = 1000  # half a million pairs
_ALLOWANCE_BYTES = 4 * 2**20
_ALLOWED_SHARE = 0.02
_NOISE_FACTOR = 3.0


@dataclass(frozen=True)
class Trend:
    """A line through measurements of memory. Bytes, over the window; `spread_bytes` is one deviation of the noise."""

    window_s: float
    median_bytes: float
    grown_bytes: float
    grown_in_halves_bytes: tuple[float, float]
    spread_bytes: float

    @property
    def slope_mib_per_hour(self) -> float:
        """The slope in MiB an hour."""
        return _mib_per_hour(self.grown_bytes, self.window_s)

    @property
    def bound_bytes(self) -> float:
        """The growth that is still called flat: 4 MiB, 2 % of the memory or three deviations, whichever is most."""
        return max(_ALLOWANCE_BYTES, _ALLOWED_SHARE * self.median_bytes, _NOISE_FACTOR * self.spread_bytes)

    @property
    def detectable_mib_per_hour(self) -> float:
        """The slowest leak that a window this long can show."""
        return _mib_per_hour(self.bound_bytes, self.window_s)

    @property
    def grows(self) -> bool:
        """Whether it grows beyond the bound, and goes on growing: at least a quarter of the bound in each half."""
        return self.grown_bytes > self.bound_bytes and min(self.grown_in_halves_bytes) > self.bound_bytes / 4


def fit(times_s: list[float], sizes_bytes: list[int]) -> Trend | None:
    """The trend of these measurements, or None where there are too few to tell."""
    if len(times_s) < _LEAST_POINTS:
        return None
    step = -(-len(times_s) // _MOST_POINTS)
    times, sizes = np.array(times_s[::step]), np.array(sizes_bytes[::step], dtype=float)
    window_s = float(times[-1] - times[0])
    slope = _slope(times, sizes)
    middle = len(times) // 2
    rests = sizes - slope * times
    return Trend(
        window_s=window_s,
        median_bytes=float(np.median(sizes)),
        grown_bytes=slope * window_s,
        grown_in_halves_bytes=(
            _slope(times[:middle], sizes[:middle]) * window_s / 2,
            _slope(times[middle:], sizes[middle:]) * window_s / 2,
        ),
        spread_bytes=float(1.4826 * np.median(np.abs(rests - np.median(rests)))),
    )


def _slope(
    times: "np.ndarray[tuple[int], np.dtype[np.float64]]", sizes: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> float:
    first, second = np.triu_indices(len(times), k=1)
    return float(np.median((sizes[second] - sizes[first]) / (times[second] - times[first])))


def _mib_per_hour(size_bytes: float, window_s: float) -> float:
    return size_bytes / 2**20 / window_s * 3600
