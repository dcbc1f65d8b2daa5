"""No request lasts longer than it may, whoever says how long, and nothing works on after its client has left."""

import concurrent.futures
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A model that takes one request at a time, and 1 second for each, behind a door that gives them 5."""
    model = {"request_timeout_s": 1, "max_running": 1}
    folder = tmp_path_factory.mktemp("door")
    with open_door(folder, TinyEngine("one"), model=model, limits={"request_timeout_s": 5}) as door:
        yield door


def timeout_of(response: httpx.Response) -> str:
    """The message of a 504."""
    assert response.status_code == 504, response.text
    error = response.json()["error"]
    assert error["code"] == "timeout"
    return str(error["message"])


def wait_until_busy(door: Door, running: int, waiting: int = 0) -> None:
    """Wait until so many requests run and wait."""

    def counts() -> tuple[int, int]:
        model = door.client.get("/status").json()["models"][0]
        return model["running"], model["waiting"]

    wait_until(lambda: counts() == (running, waiting), 10, problem=counts)


def test_the_models_own_limit_counts(door: Door) -> None:
    response = door.client.post(CHAT, json={"model": "one", "wait_s": 30})
    assert timeout_of(response) == "no complete answer within 1 s (models.one.request_timeout_s)"
    wait_until_busy(door, running=0)


def test_without_one_of_its_own_the_servers_limit_counts(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one"), limits={"request_timeout_s": 0.3}) as door:
        response = door.client.post(CHAT, json={"model": "one", "wait_s": 30})
        assert "limits.request_timeout_s" in timeout_of(response)


def test_a_client_may_ask_for_less_but_not_for_more(door: Door) -> None:
    for asked_s, words in (("0.2", "0.2 s (x-request-timeout)"), ("60", "1 s (models.one")):
        answer = door.client.post(CHAT, json={"model": "one", "wait_s": 30}, headers={"x-request-timeout": asked_s})
        assert words in timeout_of(answer)


@pytest.mark.parametrize("wrong", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_wrong_timeout_is_a_400_that_names_the_header(door: Door, wrong: str) -> None:
    response = door.client.post(CHAT, json={"model": "one"}, headers={"x-request-timeout": wrong})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-request-timeout"


def test_a_stream_that_is_cut_says_so_in_an_event(door: Door) -> None:
    text = door.client.post(CHAT, json={"model": "one", "events": 1000, "wait_s": 0.05}).text
    assert json.loads(text.split("data: ")[-1])["error"]["code"] == "timeout"


def test_waiting_counts_too(door: Door) -> None:
    first = threading.Thread(target=door.client.post, args=(CHAT,), kwargs={"json": {"model": "one", "wait_s": 30}})
    first.start()
    wait_until_busy(door, running=1)
    second = door.client.post(CHAT, json={"model": "one"}, headers={"x-request-timeout": "0.3"})
    assert "0.3 s" in timeout_of(second)
    first.join()


def test_a_body_that_takes_too_long_as_a_whole_is_a_408(door: Door) -> None:
    def dripping() -> Iterator[bytes]:
        for _ in range(100):
            yield b" "
            time.sleep(0.05)

    response = door.client.post(CHAT, content=dripping(), headers={"x-request-timeout": "0.5"})
    assert response.status_code == 408
    assert response.json()["error"]["code"] == "request_timeout"


def test_a_client_that_leaves_while_it_waits_leaves_the_row(door: Door) -> None:
    first = threading.Thread(target=door.client.post, args=(CHAT,), kwargs={"json": {"model": "one", "wait_s": 30}})
    first.start()
    wait_until_busy(door, running=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(str(door.client.base_url.join(CHAT)), json={"model": "one"}, timeout=0.3)
    wait_until_busy(door, running=1, waiting=0)
    first.join()


def test_a_client_that_leaves_frees_its_place(door: Door) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(str(door.client.base_url.join(CHAT)), json={"model": "one", "wait_s": 30}, timeout=0.3)
    wait_until_busy(door, running=0)


@pytest.mark.long
@pytest.mark.parametrize(("wait_s", "status"), [(2.9, 200), (30, 504)])
def test_a_pause_of_the_front_door_gives_a_request_its_limit_anew(door: Door, wait_s: float, status: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(door.client.post, CHAT, json={"model": "one", "wait_s": wait_s})
        wait_until_busy(door, running=1)
        door.loop.call_soon_threadsafe(time.sleep, 2.7)  # what SIGSTOP and a suspended host do to the loop
        assert answer.result().status_code == status
