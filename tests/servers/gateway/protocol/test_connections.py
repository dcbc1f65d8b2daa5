"""Clients that stop reading, and more connections than are taken."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.gateway.address import bind
from tests.servers.gateway.wire import Wire, left, post, stream
from tests.services.front_door import Door, open_door
from tests.services.polling import wait_until
from tests.services.tiny_engine import TinyEngine


@pytest.fixture
def narrow_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """A door for three connections, whose kernel keeps little of what a client does not read."""

    def narrow(host: str, port: int) -> socket.socket:
        listener = bind(host, port)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    monkeypatch.setattr("tests.services.front_door.bind", narrow)
    with open_door(tmp_path, TinyEngine("one"), limits={"write_timeout_s": 0.3, "max_connections": 3}) as door:
        yield door


def test_a_client_that_stops_reading_is_cut_off_and_its_model_freed(narrow_door: Door) -> None:
    note = left(narrow_door)
    with Wire(narrow_door.port, receive_bytes=4096) as wire:
        wire.sendall(stream(1_000_000))
        wait_until(note.exists, 2)
        wait_until(lambda: narrow_door.app.in_flight == 0, 2)
        assert b"[DONE]" not in wire.rest()


def test_an_answer_left_unread_does_not_keep_a_closing_connection(narrow_door: Door) -> None:
    body = json.dumps({"model": "one", "fail": 400, "with": {"error": {"message": "x" * 50_000}}}).encode()
    with Wire(narrow_door.port, receive_bytes=4096) as wire:
        wire.sendall(post("Host: x", "Connection: close", f"Content-Length: {len(body)}", body=body))
        time.sleep(0.8)
        assert len(wire.rest()) < 50_000


def test_connections_beyond_the_limit_take_the_place_of_one_at_rest(narrow_door: Door) -> None:
    wires = [Wire(narrow_door.port) for _ in range(3)]
    for wire in wires:
        wire.sendall(post())
        assert wire.answer()[0] == 200
    with Wire(narrow_door.port) as fourth:
        fourth.sendall(post())
        assert fourth.answer()[0] == 200
    assert wires[0].rest() == b"", "it had been at rest for longest"
    for wire in wires:
        wire.close()


def test_connections_beyond_the_limit_are_refused_while_all_others_have_a_request(narrow_door: Door) -> None:
    wires = [Wire(narrow_door.port) for _ in range(3)]
    for wire in wires:
        wire.sendall(stream(1000, 0.01))
    wait_until(lambda: narrow_door.app.in_flight == 3, 2)
    with Wire(narrow_door.port) as fourth:
        fourth.sendall(post())
        status, headers, body = fourth.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["error"]["code"] == "too_many_connections"
    for wire in wires:
        wire.close()

    def served() -> bool:
        with Wire(narrow_door.port) as wire:
            wire.sendall(post())
            return wire.answer()[0] == 200

    wait_until(served, 2)
