"""A model that cannot take a request passes it on to another one, and to nobody what it has begun."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.models.instance import State
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.supervision import group_of
from tests.services.tiny_engine import TinyEngine

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
LINE = {"first": "second", "second": "the-third"}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A line of three models, of which the last offers fewer routes."""
    engines = TinyEngine("first"), TinyEngine("second"), TinyEngine("the-third", frozenset({CHAT}), None)
    with open_door(tmp_path_factory.mktemp("door"), *engines, model={"max_running": 1, "max_waiting": 0}) as door:
        for name, other in LINE.items():
            model = door.supervisor.models[name]
            model.settings = model.settings.model_copy(update={"fallback": other})
        yield door


@pytest.fixture
def away(door: Door) -> Iterator[Any]:
    """Lets models be not ready until the end of the test."""
    names: list[str] = []

    def leave(*away: str) -> None:
        names.extend(away)
        for name in away:
            door.supervisor.models[name].choose().move(State.FAILED)

    yield leave
    for name in names:
        door.supervisor.models[name].choose().move(State.READY)


def _ask(door: Door, model: str = "first", path: str = CHAT, **fields: Any) -> httpx.Response:
    return door.client.post(path, json={"model": model, "metadata": {"model": model}, **fields})


def _served_by(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.headers.get("x-litport-served-by")


def test_a_model_that_is_ready_answers_itself(door: Door) -> None:
    answer = _ask(door)
    assert _served_by(answer) == (200, None)
    assert answer.json()["pid"] == group_of(door.supervisor.models["first"])


def test_one_that_is_not_ready_is_replaced_and_its_name_in_the_body_too(door: Door, away: Any) -> None:
    size = _ask(door, "first").json()["bytes"]
    away("first")
    answer = _ask(door)
    assert _served_by(answer) == (200, "second")
    assert answer.json()["pid"] == group_of(door.supervisor.models["second"])
    assert answer.json()["bytes"] == size + len("second") - len("first")
    away("second")
    answer = _ask(door)
    assert (_served_by(answer), answer.json()["bytes"]) == ((200, "the-third"), size + len("the-third") - len("first"))


def test_one_that_does_not_offer_the_route_is_passed_over(door: Door, away: Any) -> None:
    away("first", "second")
    assert _served_by(_ask(door, path=RESPONSES)) == (503, None)
    assert _served_by(door.client.post("/predict/first", json={})) == (503, None)


def test_what_predicts_falls_back_as_well(door: Door, away: Any) -> None:
    away("first")
    answer = door.client.post("/predict/first", json={"model": "first"})
    assert (_served_by(answer), answer.json()["bytes"]) == ((200, "second"), len('{"model":"first"}'))


def test_where_nobody_is_ready_the_error_is_that_of_the_model_that_was_named(door: Door, away: Any) -> None:
    away("first", "second", "the-third")
    answer = _ask(door)
    assert _served_by(answer) == (503, None)
    assert "'first' is failed" in answer.json()["error"]["message"]


def test_one_that_is_full_is_replaced_until_all_are_full(door: Door) -> None:
    models = [door.supervisor.models[name] for name in ("first", "second", "the-third")]
    answers: list[httpx.Response] = []
    threads = []
    for model in models:
        threads.append(threading.Thread(target=lambda: answers.append(_ask(door, wait_s=0.6))))
        threads[-1].start()
        wait_until(lambda model=model: model.admission.running)  # type: ignore[misc] # its own default
    refusal = _ask(door)
    for thread in threads:
        thread.join()
    assert {_served_by(answer) for answer in answers} == {(200, None), (200, "second"), (200, "the-third")}
    assert _served_by(refusal) == (429, None)
    assert "'first' works on 1 requests" in refusal.json()["error"]["message"]
    assert int(refusal.headers["retry-after"]) >= 1


@pytest.mark.long
def test_what_a_process_has_begun_is_not_done_again(door: Door) -> None:
    model = door.supervisor.models["first"]
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(_ask(door, wait_s=20)))
    thread.start()
    wait_until(lambda: model.choose().in_flight)
    os.kill(group_of(model), signal.SIGKILL)
    thread.join()
    assert _served_by(answers[0]) == (503, None)
    assert answers[0].json()["error"]["code"] == "model_died"
    assert _served_by(_ask(door)) == (200, "second"), "the next one does not wait for the restart"
    wait_until(lambda: model.state is State.READY)


def test_it_is_counted(door: Door, away: Any) -> None:
    away("first")
    labels = {"model": "first", "to": "second"}
    before = door.app.metrics.get_sample_value("litport_fallbacks_total", labels) or 0
    _ask(door)
    assert door.app.metrics.get_sample_value("litport_fallbacks_total", labels) == before + 1


def test_a_key_needs_the_right_for_the_model_that_is_named_only(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("alice: {key: a-key-of-16-or-more, models: [one]}\n")
    keys.chmod(0o600)
    with open_door(tmp_path, TinyEngine("one"), TinyEngine("two"), auth={"keys_file": str(keys)}) as door:
        door.client.headers["authorization"] = "Bearer a-key-of-16-or-more"
        model = door.supervisor.models["one"]
        model.settings = model.settings.model_copy(update={"fallback": "two"})
        model.choose().move(State.FAILED)
        assert _served_by(_ask(door, "one")) == (200, "two")
        assert _served_by(_ask(door, "two")) == (403, None)
