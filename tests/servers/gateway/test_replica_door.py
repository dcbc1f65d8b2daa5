"""Two replicas behind a front door: what passes, who is refused, and what the end of one costs."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from servers.engines.base import Card
from servers.engines.connection import AnswerBrokenError, Connection, NotTakenError, Reply, TokenCount
from servers.engines.http_connection import HttpConnection
from servers.engines.replica import wire
from servers.engines.replica.engine import ReplicaEngine
from servers.engines.stream import Stream
from servers.metrics import children
from servers.models.instance import State
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.replicas import SECRET, OpenReplica, open_replica, write_secret
from tests.services.tiny_engine import TinyEngine

CHAT = "/v1/chat/completions"


class CountingConnection(HttpConnection):
    """Counts 3 and 5 tokens for each answer; with `breaks` in its query, an answer breaks off at its end."""

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, query: str = ""
    ) -> Reply:
        reply = await super().send(method, path, body, headers, query)
        if query == "breaks" and isinstance(reply.chunks, Stream):
            reply.chunks.edit(BreakingEditor())
        reply.tokens = TokenCount(3, 5)
        return reply


class BreakingEditor:
    """Breaks an answer off."""

    def edit(self, chunk: bytes) -> bytes:
        return chunk

    def rest(self) -> bytes:
        raise AnswerBrokenError("no more words")


class CountingEngine(TinyEngine):
    """A tiny server behind such a connection."""

    def connect(self, socket: Path) -> Connection:
        return CountingConnection(socket)


class Pair(NamedTuple):
    """The front door, its replicas, and their folders."""

    door: Door
    replicas: tuple[OpenReplica, OpenReplica]
    folders: tuple[Path, Path]

    def states(self) -> list[State]:
        """Of the two, as the front door sees them."""
        return [instance.state for instance in self.door.supervisor.models["one"].instances]

    def left(self) -> bool:
        """Whether a client's leaving has reached one of the servers."""
        return any((folder / "run" / "left").exists() for folder in self.folders)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    folders = folder / "a", folder / "b"
    engines = [CountingEngine("one", kind="litserve") for _ in folders]
    with open_replica(folders[0], engines[0]) as first, open_replica(folders[1], engines[1]) as second:
        model = {"instances": [first.url, second.url], "canary_interval_s": 0.5}
        cluster = {"secret_file": str(write_secret(folder))}
        with open_door(folder / "..", engines[0], model=model, cluster=cluster) as door:
            pair = Pair(door, (first, second), folders)
            wait_until(lambda: pair.states() == [State.READY] * 2)
            yield pair


def test_a_request_reaches_the_model_as_it_does_where_it_runs_here(pair: Pair) -> None:
    headers = {"authorization": "Bearer key", "user-agent": "someone", "x-request-id": "abc"}
    answer = pair.door.client.post(f"{CHAT}?a=%20b", json={"model": "one"}, headers=headers)
    seen = answer.json()
    assert (answer.status_code, seen["path"], seen["query"], seen["bytes"]) == (200, CHAT, "a=%20b", 15)
    assert (seen["headers"]["user-agent"], seen["headers"]["x-request-id"]) == ("someone", "abc")
    assert not {"authorization", "x-litport-secret"} & seen["headers"].keys()
    assert [name for name in answer.headers if name.startswith("x-litport")] == ["x-litport-version"]
    refusal = pair.door.client.post(CHAT, json={"model": "one", "fail": 418, "with": {"error": {"message": "tea"}}})
    assert (refusal.status_code, refusal.json()) == (418, {"error": {"message": "tea"}})


def test_a_replica_knows_of_its_gateway_between_two_questions_too(pair: Pair) -> None:
    end_s = time.monotonic() + 1.5  # it asks twice a second
    while time.monotonic() < end_s:
        assert pair.replicas[0].replica.has_gateways


def test_a_stream_comes_whole_and_ends_with_its_client(pair: Pair) -> None:
    stream = {"model": "one", "events": 3}
    assert pair.door.client.post(CHAT, json=stream).text.endswith("data: 2\n\ndata: [DONE]\n\n")
    with pair.door.client.stream("POST", CHAT, json={**stream, "events": 5000, "wait_s": 0.01}) as answer:
        next(answer.iter_bytes())
    wait_until(pair.left)
    late = pair.door.client.post(CHAT, json={"model": "one", "wait_s": 9}, headers={"x-request-timeout": "0.1"})
    assert late.status_code == 504
    wait_until(lambda: [replica.replica._door.in_flight for replica in pair.replicas] == [0, 0])


@pytest.mark.parametrize("events", [0, 3], ids=["an answer", "a stream"])
def test_the_tokens_that_the_process_counts_reach_the_books(pair: Pair, events: int) -> None:
    def output_tokens() -> float:
        labels = {"model": "one", "direction": "output", "key": "anonymous"}
        return pair.door.app.metrics.get_sample_value("litport_tokens_total", labels) or 0.0

    before = output_tokens()
    assert pair.door.client.post(CHAT, json={"model": "one", "events": events}).status_code == 200
    wait_until(lambda: output_tokens() == before + 5)


def test_an_answer_that_breaks_off_there_says_why(pair: Pair) -> None:
    answer = pair.door.client.post(f"{CHAT}?breaks", json={"model": "one", "events": 3, "wait_s": 0.02})
    assert "data: 2" in answer.text
    assert "broke off: no more words" in answer.text
    assert pair.states() == [State.READY] * 2


def test_without_the_secret_there_is_health_only(pair: Pair) -> None:
    url = pair.replicas[0].url
    assert httpx.get(f"{url}/health").status_code == 200
    for path in ("/litport/card", "/litport/state", CHAT, "/metrics", "/openapi.json", "/elsewhere"):
        assert httpx.get(url + path).status_code == 401
    assert httpx.post(url + CHAT, content=b"x" * 2**20, headers={"x-litport-secret": SECRET[:-1]}).status_code == 403
    assert httpx.get(f"{url}/litport/card", headers={"x-litport-secret": SECRET}).json()["model"] == "one"


@pytest.mark.parametrize(
    ("name", "secret", "problem"),
    [("one", "x" * 32, r"\(403\).*cluster.secret_file"), ("two", SECRET, "expected a replica of model 'two'")],
    ids=["another secret", "another model"],
)
def test_a_start_error_names_what_does_not_fit(pair: Pair, name: str, secret: str, problem: str) -> None:
    async def warm() -> None:
        engine = ReplicaEngine(name, "litserve", pair.replicas[0].url, secret, lambda _: None)
        connection = engine.connect(Path())
        try:
            await engine.warm(connection)
        finally:
            await connection.close()

    with pytest.raises(NotTakenError, match=problem):
        asyncio.run(warm())


def test_status_and_metrics_show_them(pair: Pair) -> None:
    [status] = pair.door.client.get("/status").json()["models"]
    assert [instance["address"] for instance in status["instances"]] == [replica.url for replica in pair.replicas]
    assert (status["kind"], status["state"], status["group_id"]) == ("litserve", "ready", None)
    [entry] = pair.door.client.get("/v1/models").json()["data"]
    assert (entry["id"], entry["owned_by"]) == ("one", "tiny")
    pages = asyncio.run_coroutine_threadsafe(children.pages(pair.door.supervisor.models), pair.door.loop)
    page = pages.result(timeout=5)
    assert 'tiny_pid{model="one",replica="1"}' in page
    assert 'tiny_pid{model="one",replica="2"}' in page


def test_what_waits_at_a_gateway_is_divided_among_its_replicas(pair: Pair) -> None:
    def demand() -> float:
        return round(sum(replica.replica.demand for replica in pair.replicas), 2)

    model = pair.door.supervisor.models["one"]
    settings = model.settings
    model.adopt(settings.model_copy(update={"max_running": 1}))
    body = {"model": "one", "events": 5000, "wait_s": 0.01}
    threads = [threading.Thread(target=lambda: pair.door.client.post(CHAT, json={"model": "one"})) for _ in range(3)]
    try:
        with pair.door.client.stream("POST", CHAT, json=body):
            for thread in threads:
                thread.start()
            wait_until(lambda: demand() == 4, problem=demand)
        for thread in threads:
            thread.join()
        wait_until(lambda: demand() == 0, problem=demand)
    finally:
        model.adopt(settings)


def test_a_process_that_dies_fails_what_it_had_and_the_other_replica_serves(pair: Pair) -> None:
    wait_until(lambda: pair.states() == [State.READY] * 2, problem=pair.states)
    victim = pair.door.client.post(CHAT, json={"model": "one"}).json()["pid"]
    answers: list[httpx.Response] = []
    bodies = [{"model": "one", "wait_s": 3, "number": number} for number in range(2)]
    threads = [
        threading.Thread(target=lambda body=body: answers.append(pair.door.client.post(CHAT, json=body)))
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    instances = pair.door.supervisor.models["one"].instances

    def counts() -> list[int]:
        return [instance.in_flight for instance in instances]

    wait_until(lambda: counts() == [1, 1], 2.5, problem=lambda: (counts(), pair.states(), answers))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: sorted(pair.states()) == [State.READY, State.STARTING])
    assert pair.door.client.post(CHAT, json={"model": "one"}).json()["pid"] != victim
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert {answer.json()["error"]["code"] for answer in answers if answer.status_code == 503} == {"model_died"}
    assert len(pair.door.supervisor.models["one"].quarantine._suspects) == 1
    wait_until(lambda: pair.states() == [State.READY] * 2)


def test_a_card_says_the_same_behind_a_replica() -> None:
    card = Card(frozenset({CHAT}), listing=({"id": "one"},), max_running=3, knows_aliases=False, counts_one_choice=True)
    assert wire.card_of(wire.describe("one", "vllm", card), lambda _: None) == card


def test_one_that_drains_ends_what_it_has_and_gets_nothing_new(pair: Pair) -> None:
    """The last test: a replica that has drained does not come back."""
    answers: list[httpx.Response] = []
    body = {"model": "one", "wait_s": 0.4}
    thread = threading.Thread(target=lambda: answers.append(pair.door.client.post(CHAT, json=body)))
    thread.start()
    instances = pair.door.supervisor.models["one"].instances
    wait_until(lambda: sum(instance.in_flight for instance in instances) == 1)
    number = [instance.in_flight for instance in instances].index(1)
    drain = pair.replicas[number].drain()
    statuses = {pair.door.client.post(CHAT, json={"model": "one"}).status_code for _ in range(20)}
    wait_until(lambda: instances[number].transitions[State.DRAINING] == 1)
    thread.join()
    assert (statuses, answers[0].status_code) == ({200}, 200)
    drain.result(timeout=3)
    wait_until(lambda: pair.states()[number] is State.STARTING)
    assert pair.door.client.post(CHAT, json={"model": "one"}).status_code == 200
