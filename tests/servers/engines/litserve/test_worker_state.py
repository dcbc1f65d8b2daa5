"""What a listener hears of LitServe's loops, through our queue and our way back: real loops, in this process."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import litserve
import pytest

from servers.engines import child_logging
from servers.engines.litserve.child import worker_state
from servers.engines.litserve.child.cancellations import Cancellations
from servers.engines.litserve.child.work import Batch, Listener, Request, Step
from tests.servers.engines.litserve.loops import Api, AsyncApi, AsyncStreamApi, Events, StreamApi, work

pytestmark = pytest.mark.filterwarnings("ignore:.*LitServe will asyncify the method")


class Notes(Listener):
    """What a listener hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def request_taken(self, request: Request) -> None:
        self.lines.append(f"taken {request.uid}")

    def batch_began(self, batch: Batch) -> None:
        self.lines.append(f"batch {' '.join(request.uid for request in batch.requests)}")

    def step_ended(self, batch: Batch, step: Step, spent_s: float) -> None:
        assert 0 <= spent_s < 5
        self.lines.append(step)

    def request_answered(self, request: Request, error: Any) -> None:
        self.lines.append(f"answered {request.uid} {type(error).__name__}")

    def batch_ended(self) -> None:
        self.lines.append("ended")


@pytest.fixture
def hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Run a real loop between our queue and our way back; returns what a listener heard."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(child_logging, "install", lambda *_: None)
    with contextlib.ExitStack() as stack:

        def run(api: litserve.LitAPI, *bodies: Any, **options: Any) -> list[str]:
            notes, events, cancellations = Notes(), Events(), Cancellations(tmp_path / "cancelled")
            cancellations.clear()
            state = worker_state.WorkerState([notes])
            transport = worker_state.AnswerTransport(events, state)
            requests = worker_state.RequestQueue(state, cancellations, transport, api.stream)
            stack.callback(requests.join_thread)
            stack.callback(requests.close)
            work(
                api,
                monkeypatch,
                *bodies,
                events=events,
                requests=requests,
                callback=state,
                transport=transport,
                **options,
            )
            return notes.lines

        yield run


STEPS = ["batch_wait", "decode", "predict", "encode"]
SINGLE = ["taken u0", "batch u0", *STEPS, "answered u0 NoneType"]


@pytest.mark.parametrize(
    ("api", "lines"),
    [
        (Api, [*SINGLE, "ended"]),
        (lambda: AsyncApi(enable_async=True), SINGLE),
        (
            lambda: StreamApi(stream=True),
            ["taken u0", "batch u0", "batch_wait", "predict", "answered u0 NoneType", "encode", "ended"],
        ),
        (
            lambda: AsyncStreamApi(stream=True, enable_async=True),
            ["taken u0", "batch u0", *STEPS[:3], "answered u0 NoneType", "encode"],
        ),
        (lambda: Api(max_batch_size=2, batch_timeout=0.2), [*SINGLE, "ended"]),
        (lambda: StreamApi(stream=True, max_batch_size=2, batch_timeout=0.2), [*SINGLE, "ended"]),
    ],
    ids=["single", "async", "stream", "async stream", "batches", "stream of batches"],
)
def test_a_listener_hears_where_a_batch_begins_and_ends(
    hear: Callable[..., list[str]], api: Callable[[], litserve.LitAPI], lines: list[str]
) -> None:
    assert hear(api(), 1) == lines


def test_a_batch_has_the_requests_that_were_taken_for_it_and_have_no_answer_yet(
    hear: Callable[..., list[str]],
) -> None:
    lines = hear(Api(max_batch_size=3, batch_timeout=0.5), 1, 2, 3, ages_s=(0, 60, 0))
    assert lines[:5] == ["taken u0", "taken u1", "taken u2", "answered u1 HTTPException", "batch u0 u2"]
