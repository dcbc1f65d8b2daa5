"""A short run of chaos over small models: nothing hangs, what fails is explained, the others do not notice."""

import signal
from pathlib import Path

import pytest

from tests.conftest import serving
from tests.withstand.chaos import Chaos, chaos, forgiving
from tests.withstand.kills import Kill
from tests.withstand.traffic import Outcome

STRANGERS = "tests/services/strangers"
TARGETS = ("configs/recipes/echo.yaml", f"{STRANGERS}/squares.py:SquaresAPI", f"{STRANGERS}/streams.py:CountdownAPI")


@pytest.mark.alone
@pytest.mark.long
def test_killed_processes_fail_only_the_requests_of_their_own_model(tmp_path: Path) -> None:
    settings = ("--models.streams.stream", "true", "--server.cache_dir", str(tmp_path))
    forgiven = forgiving(["echo", "squares", "streams"])
    with serving(tmp_path, *TARGETS, *settings, *forgiven, timeout_s=60) as platform:
        seen = chaos(platform, 30, interval_s=3, clients=4, seed=4, stop_share=0.1, stop_for_s=8, back_within_s=60)
    document = seen.document()
    print(document)
    verdict = dict(document["verdict"])
    verdict.pop("a request of a killed model was told in time")  # this machine may be busy: a looser bound below
    assert verdict == dict.fromkeys(verdict, True), document
    assert max(seen.told_after_s(), default=0) < 15, document
    assert len(seen.kills) >= 4
    assert document["hit"]["how"].keys() & {"503", "200 broken"}, "the kills were felt"
    assert document["not_hit"]["requests"] > 200


def _outcome(model: str, begin_s: float, end_s: float, how: str) -> Outcome:
    return Outcome("work", model, begin_s, end_s, how, as_expected=how == "200")


@pytest.mark.parametrize(
    ("outcome", "broken"),
    [
        (_outcome("one", 9, 10.5, "503"), None),
        (_outcome("one", 15, 15.1, "503"), None),
        (_outcome("one", 15, 15.1, "500"), "every failure was explained"),
        (_outcome("one", 15, 15.1, "no answer: ReadError"), "every failure was explained"),
        (_outcome("one", 9, 13, "503"), "a request of a killed model was told in time"),
        (_outcome("one", 21, 22, "503"), "the models not hit answered"),
        (_outcome("two", 15, 16, "503"), "the models not hit answered"),
        (_outcome("two", 15, 75, "hung"), "nothing hung"),
    ],
)
def test_a_kill_excuses_its_own_model_while_it_is_down_and_nothing_else(outcome: Outcome, broken: str | None) -> None:
    kill = Kill(10, 10, "one", 0, "worker", signal.SIGKILL)
    document = Chaos([outcome], [kill], [("one", 10, 20)], all_ready=True, status_unanswered=[]).document()
    assert {claim for claim, kept in document["verdict"].items() if not kept} >= ({broken} if broken else set())
    assert all(document["verdict"].values()) is (broken is None)
