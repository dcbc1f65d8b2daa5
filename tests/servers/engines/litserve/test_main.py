import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from servers.engines.litserve.api import OUT_OF_MEMORY
from tests.servers.conftest import Serve
from tests.servers.engines.litserve.child import STRANGERS, await_that, end, launch, running


def test_the_echo_is_served_and_says_what_it_takes(serve: Serve) -> None:
    child = serve(api="echo")
    assert child.predict(input=[1, "a"]).json() == {"output": [1, "a"]}
    card = dict(child.card)
    description = card.pop("openapi")["paths"]["/predict"]["post"]["description"]
    assert len(card.pop("sockets")) == 1
    assert card == {
        "serving": "host",
        "reason": None,
        "api_path": "/predict",
        "stream": False,
        "max_batch_size": 1,
        "batch_timeout_s": None,
        "is_async": False,
        "example": {"input": "canary"},
        "tensors": None,
    }
    assert description == 'Takes: {"input": any JSON}\n\nAnswers: {"output": the same}'
    assert child.predict(**card["example"]).json() == {"output": "canary"}


def test_a_strangers_api_runs_from_its_file_with_its_own_arguments(serve: Serve) -> None:
    child = serve(api=f"{STRANGERS}/squares.py:SquaresAPI", init={"power": 3})
    assert child.predict(input=3).json() == {"output": 27}
    assert "description" not in child.card["openapi"]["paths"]["/predict"]["post"]
    assert child.card["example"] is None


def test_a_strangers_api_gets_batches_by_settings_alone(serve: Serve) -> None:
    child = serve(api=f"{STRANGERS}/batches.py:BatchesAPI", max_batch_size=4, batch_timeout=0.05)
    with ThreadPoolExecutor(9) as pool:
        answers = [answer.json() for answer in pool.map(lambda item: child.predict(input=item), range(9))]
    assert [answer["output"] for answer in answers] == list(range(9))
    assert max(answer["batch"] for answer in answers) == 4


@pytest.mark.long
def test_a_full_device_is_a_503_and_the_worker_goes_on(serve: Serve) -> None:
    child = serve(api=f"{STRANGERS}/full.py:FullAPI", max_batch_size=2, batch_timeout=0.05)
    full = child.predict(gib=9313)
    assert (full.status_code, full.json()) == (503, {"detail": OUT_OF_MEMORY})
    assert child.predict(gib=0).json() == {"gib": 0}
    assert "Tried to allocate 9313.00 GiB" in child.log_file.read_text()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("CountdownAPI", {}), ("BatchedCountdownAPI", {"max_batch_size": 2, "batch_timeout": 0.05})],
)
def test_a_strangers_api_streams_by_settings_alone(serve: Serve, name: str, settings: dict[str, Any]) -> None:
    child = serve(api=f"{STRANGERS}/streams.py:{name}", stream=True, **settings)
    lines = child.http.post("/predict", json={"from": 3}).text.splitlines()
    assert [json.loads(line) for line in lines] == [{"number": 3}, {"number": 2}, {"number": 1}]
    assert child.card["stream"] is True


def test_a_requests_answer_in_hand_survives_sigterm_and_nothing_else_does(tmp_path: Path) -> None:
    with running(tmp_path, api=f"{STRANGERS}/streams.py:CountdownAPI", stream=True) as child:
        numbers: list[int] = []
        with child.http.stream("POST", "/predict", json={"from": 4, "pause_s": 0.15}) as response:
            for line in response.iter_lines():
                if not numbers:
                    os.killpg(child.process.pid, signal.SIGTERM)
                numbers.append(json.loads(line)["number"])
        assert numbers == [4, 3, 2, 1]
        assert child.process.wait(timeout=10) == 0
        assert child.is_gone()
        assert not (tmp_path / "m.sock").exists()


def test_a_queued_requests_answer_survives_sigterm_of_the_main_process_alone(tmp_path: Path) -> None:
    with running(
        tmp_path, api=f"{STRANGERS}/batches.py:BatchesAPI", init={"max_batch_size": 2, "batch_timeout": 0.01}
    ) as child:
        answered = threading.Semaphore(0)

        def ask(item: int) -> dict[str, Any]:
            answer: dict[str, Any] = child.predict(input=item).json()
            answered.release()
            return answer

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, item) for item in range(8)]
            assert answered.acquire(timeout=30)  # so the others have arrived
            os.kill(child.process.pid, signal.SIGTERM)
            assert sorted(answer.result()["output"] for answer in answers) == list(range(8))
        assert child.process.wait(timeout=10) == 0
        assert child.is_gone()


def test_sigterm_while_a_worker_is_still_loading_ends_everything(tmp_path: Path) -> None:
    process, log_file = launch(tmp_path, api=f"{STRANGERS}/broken.py:StubbornAPI")
    try:
        await_that((tmp_path / "card.json").exists, process, log_file)  # the workers start next
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=15) == 0
    finally:
        end(process)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"api": "ecko"}, "did you mean echo?"),
        ({"api": f"{STRANGERS}/squares.py:SquaresAPI", "init": {"powr": 3}}, "unexpected keyword argument 'powr'"),
        (
            {"api": f"{STRANGERS}/streams.py:CountdownAPI"},
            "its predict yields, so it needs `stream: true` (models.m.stream)",
        ),
        ({"api": "embedding", "model_dir": "x", "stream": True}, "EmbeddingSpec decides about streaming"),
        ({"api": "echo", "accelerator": "tpu"}, "accelerator: expected auto, cpu, cuda, gpu or mps, got 'tpu'"),
        ({"api": f"{STRANGERS}/broken.py:BrokenAPI"}, "ended with status 3 in setup()"),
        ({"api": f"{STRANGERS}/broken.py:BrokenAPI", "serving": "litserve"}, "workers failed to start"),
    ],
)
def test_what_cannot_be_loaded_ends_with_status_3_and_one_line(tmp_path: Path, spec: dict[str, Any], says: str) -> None:
    process, log_file = launch(tmp_path, **spec)
    try:
        assert process.wait(timeout=60) == 3
    finally:
        end(process)
    last = log_file.read_text().splitlines()[-1]
    assert last.startswith(("litserve_main: error: ", "worker_host: error: "))
    assert says in last
