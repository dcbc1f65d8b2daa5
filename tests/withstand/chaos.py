"""Chaos: processes of the models are killed under load, and what their clients and all others see of it.

    python -m tests.withstand.chaos configs/recipes/demo.yaml --duration-s 300 --out results/chaos.json

It starts the platform itself; arguments that it does not know are the platform's. It refuses to let a kill excuse more
than it did: only requests to the model that was hit, while it was down, may fail, and only in ways that say so.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from servers.platform.targets import load
from tests.conftest import Platform, serving
from tests.withstand.kills import Kill, Killer, Watch
from tests.withstand.result import tell
from tests.withstand.traffic import HUNG, LEFT, Load, Outcome, works

# How a request to a model that was hit may end: answered, refused, or broken off so that the client can tell.
_EXPLAINED = {"200", "200 broken", "200 error event", "503", "504", LEFT}
_DIED = {"503", "200 broken", "200 error event"}
_LEAST_ANSWERED = 0.999
_TOLD_WITHIN_S = 2.0
_SHOWN = 20


@dataclass(frozen=True)
class Chaos:
    """What was seen. `down` has for each kill the time from which and until which its model was not itself."""

    outcomes: list[Outcome]
    kills: list[Kill]
    down: list[tuple[str, float, float]]
    all_ready: bool
    status_unanswered: list[str]

    def was_hit(self, outcome: Outcome) -> bool:
        """Whether the request touched a time in which its model was not itself."""
        return any(
            outcome.model == model and outcome.begin_s <= until_s and outcome.end_s >= from_s
            for model, from_s, until_s in self.down
        )

    def told_after_s(self) -> list[float]:
        """For each request that its model had in hand when it was killed, and lost: how soon its client was told."""
        return [
            outcome.end_s - kill.at_s
            for kill in self.kills
            for outcome in self.outcomes
            if kill.number == signal.SIGKILL
            and outcome.model == kill.model
            and outcome.how in _DIED
            and outcome.begin_s < kill.at_s < outcome.end_s
        ]

    def document(self) -> dict[str, Any]:
        """The result as JSON has it."""
        hit = [outcome for outcome in self.outcomes if self.was_hit(outcome)]
        not_hit = [outcome for outcome in self.outcomes if not self.was_hit(outcome)]
        failed = [outcome for outcome in not_hit if not outcome.as_expected]
        hung = [outcome for outcome in self.outcomes if outcome.how == HUNG]
        unexplained = [outcome for outcome in hit if outcome.how not in _EXPLAINED]
        answered = 1 - len(failed) / max(1, len(not_hit))
        told_s = self.told_after_s()
        backs_s = [until_s - from_s for _, from_s, until_s in self.down]
        return {
            "verdict": {
                "nothing hung": not hung,
                "every failure was explained": not unexplained,
                "the models not hit answered": answered >= _LEAST_ANSWERED,
                "a request of a killed model was told in time": max(told_s, default=0) <= _TOLD_WITHIN_S,
                "all models came back": self.all_ready,
                "the status was always answered": not self.status_unanswered,
            },
            "kills": dict(Counter(f"{kill.model}/{kill.role} {kill.number.name}" for kill in self.kills)),
            "not_hit": {"requests": len(not_hit), "failed": len(failed), "answered_share": round(answered, 5)},
            "hit": {"requests": len(hit), "how": dict(Counter(outcome.how for outcome in hit))},
            "told_after_s": {"requests": len(told_s), "max": round(max(told_s), 3) if told_s else None},
            "back_after_s": {"max": round(max(backs_s), 1) if backs_s and self.all_ready else None},
            "longest_request_s": round(max(outcome.end_s - outcome.begin_s for outcome in self.outcomes), 2),
            "failed": self._described(failed),
            "unexplained": self._described(unexplained),
            "hung": self._described(hung),
            "status_unanswered": self.status_unanswered[:_SHOWN],
        }

    def _described(self, outcomes: list[Outcome]) -> list[str]:
        """The first of them, each with the kills just before it ended."""
        described = []
        for outcome in outcomes[:_SHOWN]:
            causes = [
                f"{kill.model}/{kill.role} {kill.number.name} {outcome.end_s - kill.at_s:.2f} s before"
                for kill in self.kills
                if 0 <= outcome.end_s - kill.at_s < 30
            ]
            took_s = outcome.end_s - outcome.begin_s
            described.append(f"{outcome.work}: {outcome.how} after {took_s:.2f} s; {', '.join(causes) or 'no kill'}")
        return described


def chaos(
    platform: Platform,
    duration_s: float,
    *,
    interval_s: float = 10,
    clients: int = 6,
    pause_s: float = 0.005,
    seed: int = 0,
    stop_share: float = 0.1,
    stop_for_s: float = 30,
    back_within_s: float = 180,
    limit_s: float = 60,
) -> Chaos:
    """Load and kill for `duration_s` seconds, then wait until all models are back, still under load."""
    kinds = works(platform.status())
    outcomes: list[Outcome] = []
    watch = Watch(platform)
    killer = Killer(watch, interval_s=interval_s, seed=seed, stop_share=stop_share, stop_for_s=stop_for_s)
    try:
        traffic = Load(
            platform.url, kinds, outcomes.append, clients=clients, seed=seed, pause_s=pause_s, limit_s=limit_s
        )
        try:
            killer.run(duration_s)
            deadline = time.monotonic() + back_within_s
            # Each kill has to be over, too: right after one the status may not know of it yet.
            while _any_down(watch, killer) and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            traffic.stop()
        all_ready = not _any_down(watch, killer)
    finally:
        watch.stop()
    down = [(kill.model, kill.at_s, watch.until_itself(kill)) for kill in killer.kills]
    return Chaos(outcomes, killer.kills, down, all_ready, watch.unanswered)


def _any_down(watch: Watch, killer: Killer) -> bool:
    return not watch.all_ready or any(watch.until_itself(kill) == float("inf") for kill in killer.kills)


def forgiving(names: list[str]) -> list[str]:
    """The platform's arguments for models that may be killed as often as they like."""
    return [word for name in names for word in (f"--models.{name}.max_restarts", "1000")]


def main(argv: list[str] | None = None) -> int:
    """Run it from the command line; the exit status is 1 where a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.withstand.chaos", allow_abbrev=False, description=str(__doc__).split("\n")[0]
    )
    parser.add_argument("--duration-s", type=float, default=300)
    parser.add_argument("--interval-s", type=float, default=10, help="time between two kills")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--pause-s", type=float, default=0.02, help="rest of a client between two requests")
    parser.add_argument("--stop-share", type=float, default=0.1, help="share of kills that are a SIGSTOP instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the result, as JSON")
    options, rest = parser.parse_known_args(argv)
    arguments = rest or ["configs/recipes/demo.yaml"]
    with tempfile.TemporaryDirectory() as folder:
        arguments += forgiving(_names(arguments))
        with serving(Path(folder), *arguments) as platform:
            result = chaos(
                platform,
                options.duration_s,
                interval_s=options.interval_s,
                clients=options.clients,
                pause_s=options.pause_s,
                stop_share=options.stop_share,
                seed=options.seed,
            )
    return tell(result.document(), options.out)


def _names(arguments: list[str]) -> list[str]:
    """The models that these arguments serve, as the platform itself would name them."""
    targets = list(takewhile(lambda word: not word.startswith("--"), arguments))
    return list(load(targets, arguments[len(targets) :]).settings.models)


if __name__ == "__main__":
    sys.exit(main())
