"""Heads that are oversized, or that two servers could read in two ways."""

import json
import time

import pytest

from tests.servers.gateway.wire import BODY, Wire, post
from tests.services.front_door import Door


def test_a_large_header_just_under_the_limit_passes(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", f"Content-Length: {len(BODY)}", "X-Large: " + "x" * 32_000))
        assert wire.answer()[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        post("Host: x", "X-Large: " + "x" * 32_768, body=b""),
        post("Host: x", *[f"X-{number}: {'x' * 1000}" for number in range(40)], body=b""),
        post("Host: x", path="/" + "x" * 32_768, body=b""),
        post("Host: x", body=b"")[:-2] + b"X-Endless: " + b"x" * 400_000,
        b"POST /" + b"x" * 400_000,
        post("Host: x", *[f"X-{number}: 1" for number in range(100)], body=b""),
    ],
    ids=["one field", "all fields", "the path", "a field without end", "a path without end", "101 fields"],
)
def test_a_head_over_the_limits_is_a_431(door: Door, head: bytes) -> None:
    with Wire(door.port) as wire:
        wire.sendall(head)
        assert "limits.max_header_bytes" in wire.refused(431)


@pytest.mark.parametrize("end", [b"0\r\nX-Endless: ", b"1;"], ids=["trailer", "chunk extension"])
def test_what_follows_the_head_is_not_read_without_end_either(door: Door, end: bytes) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Transfer-Encoding: chunked", body=end))
        wire.sendall(b"x" * 400_000)
        wire.refused(431)


def test_a_trailer_is_no_header(door: Door) -> None:
    trailer = b"0\r\nX-Request-Id: from-trailer\r\n\r\n"
    with Wire(door.port) as wire:
        wire.sendall(post("Host: x", "Transfer-Encoding: chunked", body=b"10\r\n" + BODY + b"\r\n" + trailer))
        status, headers, _ = wire.answer()
        assert (status, headers["x-request-id"] == "from-trailer") == (200, False)


@pytest.mark.parametrize(
    "request_",
    [
        post(f"Content-Length: {len(BODY)}"),
        post("Host: x", "Host: x", f"Content-Length: {len(BODY)}"),
        post("Host: x", f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"),
        post("Host: x", "Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}"),
        post("Host: x", "Content-Length: 16", "Content-Length: 17"),
        post("Host: x", "Content-Length: 16, 17"),
        post("Host: x", "Content-Length: +16"),
        post("Host: x", "Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0"),
        post("Host: x", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        post("Host: x", "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
        post("Host: x", "Transfer-Encoding: chunked", body=b"zz\r\n"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_can_be_read_in_two_ways_is_a_400(door: Door, request_: bytes) -> None:
    with Wire(door.port) as wire:
        wire.sendall(request_)
        wire.refused(400)


def test_http_1_0_needs_no_host(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(post(f"Content-Length: {len(BODY)}", version="1.0"))
        assert wire.answer()[0] == 200


def test_a_tunnel_is_refused(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wire.refused(405)


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    ],
    ids=["h2c", "websocket"],
)
def test_an_upgrade_is_ignored_and_the_body_stays_a_body(door: Door, fields: tuple[str, ...]) -> None:
    body = b'{"model": "one", "note": "GET /health HTTP/1.1"}'
    request = post("Host: x", *fields, f"Content-Length: {len(body)}", body=body)
    for cut in (len(request), len(request) - 20, 30):
        with Wire(door.port) as wire:
            wire.sendall(request[:cut])
            time.sleep(0.02)
            wire.sendall(request[cut:])
            status, _, answer = wire.answer()
            assert (status, json.loads(answer)["bytes"]) == (200, len(body))
            wire.sendall(post())
            assert wire.answer()[0] == 200
