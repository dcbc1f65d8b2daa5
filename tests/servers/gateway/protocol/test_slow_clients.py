"""Clients that are slow or silent get so much time, and no more."""

import contextlib
import json
import time

import pytest

from tests.servers.gateway.wire import BODY, CHAT, Wire, post
from tests.services.front_door import Door
from tests.services.polling import wait_until


def test_a_connection_that_says_nothing_is_closed(door: Door) -> None:
    with Wire(door.port) as wire:
        assert wire.rest() == b""


def test_line_ends_alone_do_not_keep_a_connection_open(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(b"\r\n\r\n")
        assert wire.rest() == b""


def test_a_head_that_drips_in_is_a_408_however_often_something_comes(door: Door) -> None:
    with Wire(door.port) as wire:
        begin = time.monotonic()
        wire.sendall(f"POST {CHAT} HTTP/1.1\r\n".encode())
        for number in range(4):
            time.sleep(0.05)
            wire.sendall(f"X-{number}: 1\r\n".encode())
        assert "limits.header_timeout_s" in wire.refused(408)
        assert 0.25 < time.monotonic() - begin < 1


def test_the_head_of_a_later_request_has_its_time_too(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post())
        assert wire.answer()[0] == 200
        wire.sendall(b"POST ")
        wire.refused(408)


def test_a_connection_at_rest_outlives_the_header_timer(door: Door) -> None:
    with Wire(door.port) as wire:
        for _ in range(3):
            wire.sendall(post())
            assert wire.answer()[0] == 200
            time.sleep(0.35)


def test_a_body_that_stalls_is_a_408_and_counts_as_one(door: Door) -> None:
    labels = {"model": "", "code": "request_timeout"}
    count = door.app.metrics.get_sample_value("litport_rejections_total", labels) or 0
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 100"))
        assert "limits.body_timeout_s" in wire.refused(408)
    wait_until(lambda: door.app.metrics.get_sample_value("litport_rejections_total", labels) == count + 1)


def test_a_slow_body_that_keeps_coming_is_served(door: Door) -> None:
    with Wire(door.port) as wire:
        whole = post(body=json.dumps({"model": "one", "note": "x" * 800}).encode())
        wire.sendall(whole[:-800])
        for begin in range(len(whole) - 800, len(whole), 200):
            time.sleep(0.15)
            wire.sendall(whole[begin : begin + 200])
        assert wire.answer()[0] == 200


def test_a_body_that_drips_in_is_a_408_however_often_something_comes(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 1000", body=b""))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(20):
                wire.sendall(b"x")
                time.sleep(0.05)
        assert "limits.body_timeout_s" in wire.refused(408)


def test_a_body_that_stalls_after_its_answer_closes_the_connection(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Content-Length: 100", path="/nowhere"))
        assert wire.answer()[0] == 404
        assert wire.rest() == b""


def test_a_body_that_comes_after_its_answer_leaves_the_connection_usable(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post(path="/nowhere", body=BODY)[: -len(BODY)])
        assert wire.answer()[0] == 404
        wire.sendall(BODY + post())
        assert wire.answer()[0] == 200
        time.sleep(0.4)
        wire.sendall(post())
        assert wire.answer()[0] == 200


def test_a_body_without_end_is_not_read_for_ever_after_its_answer(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Transfer-Encoding: chunked", body=b"", path="/nowhere"))
        assert wire.answer()[0] == 404
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            wire.sendall((b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 2000)
