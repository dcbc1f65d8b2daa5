"""While the platform drains, requests in flight go on to their end, and no other begins."""

import asyncio
import threading
from pathlib import Path

import httpx

from tests.services.front_door import open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine


def test_requests_in_flight_end_and_new_ones_are_rejected(tmp_path: Path) -> None:
    answers: list[httpx.Response] = []
    with open_door(tmp_path, TinyEngine("one"), model={"max_running": 1}) as door:

        def ask() -> None:
            answers.append(door.client.post("/predict/one", json={"wait_s": 0.4}))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: door.app.in_flight == 2, 5)  # one runs, one waits
        drained = asyncio.run_coroutine_threadsafe(door.app.drain(), door.loop)
        wait_until(lambda: door.client.get("/ready").status_code == 503, 5)
        rejected = door.client.post("/predict/one", json={})
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (503, "shutting_down")
        assert not drained.done()
        drained.result(timeout=5)
        assert door.app.in_flight == 0
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]


def test_without_requests_it_is_over_at_once(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        asyncio.run_coroutine_threadsafe(door.app.drain(), door.loop).result(timeout=1)
