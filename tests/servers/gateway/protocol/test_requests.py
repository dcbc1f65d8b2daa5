"""Requests one after the other, and at once, on one connection."""

import asyncio

import pytest

from servers.gateway.response import Response
from tests.servers.gateway.wire import BODY, Wire, left, post, stream
from tests.services.front_door import Door
from tests.services.polling import wait_until


def test_a_request_sent_before_the_last_is_answered_ends_both(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post() + post())
        assert "pipelining" in wire.refused(400)
    note = left(door)
    with Wire(door.port) as wire:
        wire.sendall(stream(1000, 0.01))
        assert b"data: 0" in wire.recv(65536) + wire.recv(65536)
        wire.sendall(post())
        assert b"HTTP/1.1" not in wire.rest(), "the second request was answered"
        wait_until(note.exists, 2)
        wait_until(lambda: door.app.in_flight == 0, 2)


def test_a_request_sent_on_the_last_byte_of_an_answer_is_served(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Response.finish

    async def finish_late(answer: Response, chunk: bytes = b"") -> None:
        answer.write(chunk)
        await asyncio.sleep(0.1)
        await finish(answer)

    monkeypatch.setattr(Response, "finish", finish_late)
    with Wire(door.port) as wire:
        for _ in range(3):
            wire.sendall(post(path="/nowhere"))
            assert wire.answer()[0] == 404


def test_requests_on_one_connection_one_after_the_other_are_served(door: Door) -> None:
    with Wire(door.port) as wire:
        for _ in range(20):
            wire.sendall(post())
            assert wire.answer()[0] == 200


def test_a_chunked_upload_is_served(door: Door) -> None:
    pieces = (b"x" * 1000 for _ in range(50))
    assert door.client.post("/predict/one", content=pieces).json()["bytes"] == 50_000


def test_a_client_that_expects_a_continue_gets_it(door: Door) -> None:
    head = post("Host: x", f"Content-Length: {len(BODY)}", "Expect: 100-continue", body=b"")
    with Wire(door.port) as wire:
        wire.sendall(head)
        assert wire.answer()[0] == 100
        wire.sendall(BODY)
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (200, "close")


def test_an_expected_continue_that_is_not_given_ends_the_connection(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 16", "Expect: 100-continue", body=b"", path="/nowhere"))
        assert wire.answer()[0] == 404
        assert wire.rest() == b"", "what comes next could be the body or a request"


def test_a_long_stream_reaches_a_client_that_reads(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(stream(60, 0.01))
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += wire.recv(65536)
        assert received.count(b"data: ") == 61
