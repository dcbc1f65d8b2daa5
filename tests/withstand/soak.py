"""The soak: mixed traffic for as long as wanted, and whether anything grows that should not.

    python -m tests.withstand.soak configs/recipes/demo.yaml --duration-s 1800 --out results/soak.json

It starts the platform itself; arguments that it does not know are the platform's. Memory is judged under load, by its
trend after the first third (see `trend`); descriptors and the unburied dead are judged at rest, after the first third
and at the end, because under load they follow the connections. It refuses to call a platform flat that was restarted on
the way, or that answered other than it should.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import Platform, serving
from tests.withstand.processes import Moment, read
from tests.withstand.result import tell
from tests.withstand.traffic import Load, Outcome, works
from tests.withstand.trend import Trend, fit

_WARM_UP_SHARE = 1 / 3
# A collector or a timer may hold one or two a moment longer; a leak is one a request.
_SPARE_DESCRIPTORS = 3
# Connections at rest between front door and children live 3 s, and are looked for every 3 s.
_REST_S = 7.0


@dataclass
class Soak:
    """What was seen: every sample with its time, and the two moments at rest."""

    duration_s: float = 0
    judged_from_s: float = 0
    times_s: list[float] = field(default_factory=list)
    samples: list[Moment] = field(default_factory=list)
    at_rest: list[Moment] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    restarts: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> None:
        """Count one request."""
        what = f"{outcome.work}: {outcome.how}"
        self.requests[what] += 1
        if not outcome.as_expected:
            self.unexpected[what] += 1

    def trends(self) -> dict[str, Trend]:
        """The trend of each process's memory under load, the first third left out."""
        timed = zip(self.times_s, self.samples, strict=True)
        kept = [(time_s, moment) for time_s, moment in timed if time_s >= self.judged_from_s]
        found = {}
        for key in {key for _, moment in kept for key in moment.processes}:
            seen = [(time_s, moment.processes[key].memory_bytes) for time_s, moment in kept if key in moment.processes]
            if trend := fit([time_s for time_s, _ in seen], [size for _, size in seen]):
                found[key] = trend
        return found

    def growing(self) -> list[str]:
        """The processes whose memory grows."""
        return sorted(key for key, trend in self.trends().items() if trend.grows)

    def leaking(self) -> list[str]:
        """The processes that hold more descriptors at rest than they held at rest before (each by itself)."""
        before, after = (moment.descriptors for moment in self.at_rest)
        grown = (key for key in before.keys() & after if after[key] > before[key] + _SPARE_DESCRIPTORS)
        return sorted(key for key in grown if not key.endswith("/sum"))

    def verdict(self) -> dict[str, bool]:
        """What was promised, and whether it was kept."""
        return {
            "memory is flat": not self.growing(),
            "descriptors are flat at rest": not self.leaking(),
            "no zombie at rest": not any(moment.zombies for moment in self.at_rest),
            "no model was restarted": not any(self.restarts.values()),
            "every answer was as expected": not self.unexpected,
        }

    def document(self) -> dict[str, Any]:
        """The result as JSON has it."""
        trends = self.trends()
        return {
            "verdict": self.verdict(),
            "duration_s": self.duration_s,
            "requests": dict(sorted(self.requests.items())),
            "unexpected": dict(self.unexpected),
            "restarts": self.restarts,
            "zombies": {
                "at_rest": [moment.zombies for moment in self.at_rest],
                "max": max(moment.zombies for moment in self.samples),
            },
            "growing": self.growing(),
            "leaking_descriptors": self.leaking(),
            "processes": {key: self._process(key, trends.get(key)) for key in sorted(self._keys())},
        }

    def _keys(self) -> set[str]:
        return {key for moment in (*self.samples, *self.at_rest) for key in moment.processes}

    def _process(self, key: str, trend: Trend | None) -> dict[str, Any]:
        seen = [moment.processes[key] for moment in self.samples if key in moment.processes]
        at_rest = [moment.processes[key].descriptors for moment in self.at_rest if key in moment.processes]
        described = asdict(trend) if trend else {}
        if trend:
            described = {
                "slope_mib_per_hour": round(trend.slope_mib_per_hour, 3),
                "detectable_mib_per_hour": round(trend.detectable_mib_per_hour, 3),
                "bound_mib": round(trend.bound_bytes / 2**20, 2),
                "grown_mib": round(trend.grown_bytes / 2**20, 3),
                "spread_mib": round(trend.spread_bytes / 2**20, 3),
                "median_mib": round(trend.median_bytes / 2**20, 1),
                "window_s": round(trend.window_s, 1),
                "grows": trend.grows,
            }
        return {
            "samples": len(seen),
            "memory": described or None,
            "descriptors": {
                "first": seen[0].descriptors if seen else None,
                "last": seen[-1].descriptors if seen else None,
                "max": max((reading.descriptors for reading in seen), default=None),
                "at_rest": at_rest,
            },
            "threads_max": max((reading.threads for reading in seen), default=None),
        }


def soak(
    platform: Platform,
    duration_s: float,
    *,
    sample_s: float = 5,
    clients: int = 4,
    pause_s: float = 0.005,
    seed: int = 0,
) -> Soak:
    """Load the platform for `duration_s` seconds, and the two rests besides."""
    result = Soak(duration_s=duration_s)
    before = platform.status()
    kinds = works(before)
    for part, share in enumerate((_WARM_UP_SHARE, 1 - _WARM_UP_SHARE)):
        result.judged_from_s = time.monotonic()
        load = Load(platform.url, kinds, result.count, clients=clients, seed=seed + part, pause_s=pause_s)
        try:
            _sample(platform, result, time.monotonic() + duration_s * share, sample_s)
        finally:
            load.stop()
        result.at_rest.append(_rest(platform))
    after = platform.status()
    result.restarts = {name: _number(after[name]) - _number(before[name]) for name in before}
    return result


def _sample(platform: Platform, result: Soak, end_s: float, sample_s: float) -> None:
    while time.monotonic() < end_s:
        result.times_s.append(time.monotonic())
        result.samples.append(_moment(platform))
        time.sleep(max(0.0, min(sample_s, end_s - time.monotonic())))


def _rest(platform: Platform) -> Moment:
    """The platform at rest: the least that each process held, since models are looked after all the time."""
    end_s = time.monotonic() + _REST_S
    rest = _moment(platform)
    while time.monotonic() < end_s:
        time.sleep(0.5)
        moment = _moment(platform)
        least = {
            key: min(reading, rest.processes.get(key, reading), key=lambda one: one.descriptors)
            for key, reading in moment.processes.items()
        }
        rest = Moment(least, min(rest.zombies, moment.zombies))
    return rest


def _moment(platform: Platform) -> Moment:
    groups = {model["group_id"]: name for name, model in platform.status().items() if model["group_id"]}
    return read(platform.process.pid, {group: name for group, name in groups.items() if isinstance(group, int)})


def _number(model: dict[str, object]) -> int:
    restarts = model["restarts"]
    assert isinstance(restarts, int)
    return restarts


def main(argv: list[str] | None = None) -> int:
    """Run it from the command line; the exit status is 1 where a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.withstand.soak", allow_abbrev=False, description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--duration-s", type=float, default=1800)
    parser.add_argument("--sample-s", type=float, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause-s", type=float, default=0.02, help="rest of a client between two requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the result, as JSON")
    options, platform_arguments = parser.parse_known_args(argv)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), *(platform_arguments or ["configs/recipes/demo.yaml"])) as platform,
    ):
        result = soak(
            platform,
            options.duration_s,
            sample_s=options.sample_s,
            clients=options.clients,
            pause_s=options.pause_s,
            seed=options.seed,
        )
    return tell(result.document(), options.out)


if __name__ == "__main__":
    sys.exit(main())
