"""A new version of a model takes over without a failed request; a bad one gets none, or is rolled back by itself."""

import itertools
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock
from unittest.mock import Mock

import pytest

from litport import main
from servers.models import comparison
from servers.models.comparison import Comparison
from servers.models.instance import State
from servers.models.question import Question
from servers.models.recent import Recent
from servers.models.trial import Limits, Trial
from servers.platform import workshop
from tests.servers.models.conftest import GUEST, ask, command, serving, traffic
from tests.services.front_door import Door
from tests.services.polling import wait_until
from tests.services.supervision import group_of


def test_a_swap_under_load_fails_no_request_and_a_rollback_is_instant(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    before = serving(door)
    with traffic(door) as connections:
        command(door, "swap", "one", "--set", "env.TINY_BYTES=1", "--compare", "4")
        after = serving(door)
        wait_until(lambda: all(answers[-1][1] == after.version for answers in connections))
        command(door, "rollback", "one")
        wait_until(lambda: all(answers[-1][1] == before.version for answers in connections))
    for answers in connections:
        assert {status for status, _ in answers} == {200}
        versions = [version for _, version in answers]
        changes = sum(one != other for one, other in itertools.pairwise(versions))
        assert changes == 2, "there and back, each at one point"
    out = capsys.readouterr().out
    assert "compare: 4 of 4 answers equal (100%)" in out
    assert serving(door) is before
    [status] = door.client.get("/status").json()["models"]
    kept = {"version": after.version, "role": "previous", "state": "ready", "percent": None}
    assert (status["version"], status["others"]) == (before.version, [kept])


def test_where_no_request_is_kept_the_workload_of_the_recipe_is_asked(
    door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = (Question("/v1/chat/completions", b'{"plain": true}'),) * 3
    monkeypatch.setattr(workshop, "questions", lambda _settings, _name, count: workload[:count])
    monkeypatch.setattr(serving(door), "recording", None)
    command(door, "swap", "one", "--set", "env.TINY_BYTES=2", "--compare", "8")
    assert "compare: 3 of 3 answers equal (100%)" in capsys.readouterr().out
    command(door, "rollback", "one")


@pytest.mark.parametrize(("late", "verdict"), [(1, ""), (5, ""), (6, "6 of 20 answers took too long")])
def test_a_trial_ends_by_more_late_answers_than_chance_makes(late: int, verdict: str) -> None:
    old, new = (Mock(recent=Recent()) for _ in range(2))
    for number in range(20):
        old.recent.note(time.monotonic(), 0.1)
        new.recent.note(time.monotonic(), 0.5 if number < late else 0.1)
    problem = Trial(new, Limits()).problem(old)
    assert (verdict in problem, bool(problem)) == (True, bool(verdict))


def test_a_version_that_seems_slower_by_chance_is_asked_again_and_takes_over(
    door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = ((0.1, 0.4),), ((0.4, 0.1),)
    outcomes = iter([Comparison(4, 4, 0, slow * 3 + quick), Comparison(4, 4, 0, quick * 4)])

    async def compare(*_: object) -> Comparison:
        return next(outcomes)

    monkeypatch.setattr(comparison, "compare", compare)
    command(door, "swap", "one", "--set", "env.TINY_BYTES=4", "--compare", "4")
    assert "compare: median 400.0 ms -> 100.0 ms of 8 pairs of answers" in capsys.readouterr().out
    command(door, "rollback", "one")


def test_a_version_that_fails_when_it_is_asked_again_does_not_take_over(
    door: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = ((0.1, 0.4),), ((0.4, 0.1),)
    outcomes = iter([Comparison(4, 4, 0, slow * 3 + quick), Comparison(4, 0, 4, ())])

    async def compare(*_: object) -> Comparison:
        return next(outcomes)

    before = serving(door)
    monkeypatch.setattr(comparison, "compare", compare)
    assert main(["swap", "one", "--set", "env.TINY_BYTES=5", "--compare", "4", "--port", str(door.port)]) == 2
    assert "it failed 4 of 4 requests that " in capsys.readouterr().err
    assert serving(door) is before


@pytest.mark.parametrize(
    ("changes", "options", "cause"),
    [
        (["env.TINY_ANSWER=two"], (), 'check \'knows\' failed: expected answer to be "one", got "two"'),
        pytest.param(
            ["env.TINY_WAIT_S=2", "checks.knows.within_s=0.5"],
            (),
            "no answer within 0.5 s (within_s)",
            marks=pytest.mark.long,
        ),
        pytest.param(["env.PYTHONHOME=/nowhere"], (), "its main process ended", marks=pytest.mark.long),
        pytest.param(
            ["env.TINY_ANSWER=two", 'checks={"knows": {"equals": {"answer": "two"}}}'],
            ("--compare", "8"),
            "0 of",
            marks=pytest.mark.long,
        ),
        pytest.param(["env.TINY_WAIT_S=0.1"], ("--compare", "8"), "--max-slowdown", marks=pytest.mark.long),
        (["init={a: 1"], (), "expected YAML"),
        (["nonsense=1"], (), "no such setting"),
    ],
    ids=["wrong", "late", "crashes", "other answers", "slower", "not YAML", "unknown"],
)
def test_a_bad_version_never_gets_a_request(
    door: Door, capsys: pytest.CaptureFixture[str], changes: Sequence[str], options: Sequence[str], cause: str
) -> None:
    before = serving(door)
    ask(door)
    assert main(["swap", "one", "--set", *changes, *options, "--port", str(door.port)]) == 2
    assert cause in capsys.readouterr().err
    assert serving(door) is before
    assert not [model for model in door.supervisor.beside if not model.is_leaving]
    assert ask(door).status_code == 200


@pytest.mark.long
def test_a_version_that_fails_its_share_of_requests_is_rolled_back_by_itself(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    before, count = serving(door), serving(door).swaps["rolled_back"]
    with traffic(door) as connections:
        arguments = ("--set", "env.TINY_FAIL_PLAIN=1", "--steps", "10,100", "--every", "20")
        assert main(["swap", "one", *arguments, "--port", str(door.port)]) == 2
        assert "requests failed" in capsys.readouterr().err
        lengths = [len(answers) for answers in connections]
        wait_until(lambda: all(len(a) > length + 5 for a, length in zip(connections, lengths, strict=True)))
    for answers, length in zip(connections, lengths, strict=True):
        assert {status for status, _ in answers[length + 1 :]} == {200}
    assert (serving(door), before.swaps["rolled_back"], before.trial) == (before, count + 1, None)


@pytest.mark.long
def test_a_version_that_fails_for_good_after_the_move_is_rolled_back_and_ends_nothing(door: Door) -> None:
    before = serving(door)
    command(door, "swap", "one", "--set", "max_restarts=0")
    after = serving(door)
    os.kill(group_of(after), signal.SIGKILL)
    wait_until(lambda: serving(door) is before)
    assert ask(door).headers["x-litport-version"] == before.version
    assert (after.state, door.platform.failed) == (State.FAILED, False)


@pytest.mark.long
def test_steps_move_a_stated_share_of_the_requests_and_then_all(door: Door) -> None:
    before = serving(door)
    with traffic(door) as connections:
        command(door, "swap", "one", "--set", "env.TINY_BYTES=2", "--steps", "25,100", "--every", "1s")
    after = serving(door)
    answers = [answer for answers in connections for answer in answers]
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {before.version, after.version}
    assert after is not before


def test_without_room_for_both_a_swap_wants_to_be_allowed_a_gap(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    before = serving(door)
    with mock.patch.object(door.platform.loader.room, "budget_bytes", 2**20):
        arguments = ["swap", "one", "--set", "env.TINY_BYTES=3", "--port", str(door.port)]
        assert main(arguments) == 2
        assert "--allow-gap ends" in capsys.readouterr().err
        assert (serving(door), before.state) == (before, State.READY)
        with traffic(door) as connections:
            command(door, "swap", "one", "--set", "env.TINY_BYTES=3", "--compare", "4", "--allow-gap")
    assert "is not up, so" in capsys.readouterr().out
    assert {status for answers in connections for status, _ in answers} == {200}, "they waited"
    assert serving(door) is not before


def test_a_rollback_waits_for_the_end_of_the_version_before_and_starts_it_again(door: Door) -> None:
    before = serving(door)
    with traffic(door) as connections:
        command(door, "swap", "one", "--set", "env.TINY_BYTES=3", "rollback_s=0")
        wait_until(lambda: before.state is not State.READY)  # its end has begun
        command(door, "rollback", "one")
        wait_until(lambda: all(answers[-1][1] == before.version for answers in connections))
    assert {status for answers in connections for status, _ in answers} == {200}
    assert serving(door) is before
    assert before.state is State.READY
    assert group_of(before) > 0


def test_a_swap_that_fails_in_an_unforeseen_way_leaves_nothing_of_the_new_version(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    before = serving(door)
    monkeypatch.setattr("servers.models.versions._questions", fail)
    assert main(["swap", "one", "--set", "env.TINY_BYTES=4", "--compare", "2", "--port", str(door.port)]) == 2
    assert serving(door) is before
    left = {model.version for model in door.supervisor.beside if model.settings.env.get("TINY_BYTES") == "4"}
    assert left == set()


def test_over_http_it_takes_an_admin_key_and_each_step_is_audited(door: Door) -> None:
    order: dict[str, Any] = {"set": {"checks.knows.status": 201}}
    refused = door.client.post("/admin/swap/one", json=order, headers={"x-api-key": GUEST})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_admin")
    for body, code in (({"set": {}, "steps": [50]}, "invalid_order"), ({"sets": {}}, "invalid_order")):
        assert door.client.post("/admin/swap/one", json=body).json()["error"]["code"] == code
    answer = door.client.post("/admin/swap/one", json=order)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_changed")
    audit = Path(door.supervisor.models["one"].instances[0].log_file).parents[1] / "audit.jsonl"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    change = [line for line in lines if line.get("change") == "swap"][-1]
    assert (change["who"], change["from"], change["result"]) == ("key root", serving(door).version, "refused")
    assert "expected status 201, got 200" in change["detail"]
