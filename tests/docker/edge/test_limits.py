"""What ends at the edge: large heads and bodies, slow and silent clients, too many requests of one address."""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from configs.settings import Limits
from tests.conftest import Platform
from tests.docker.edge.conftest import (
    BEARER,
    CURL,
    EDGE,
    KEY,
    WITH_HTTP2,
    WITH_NGINX,
    Edge,
    edge_before,
    reached,
    recorder,
)

LARGE_BYTES = 100 * 2**20


@WITH_NGINX
def test_a_head_of_5_mb_ends_at_the_edge(edge: Edge, litport: Platform) -> None:
    with edge.wire() as wire:
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # it may be closed before all of it is sent
            wire.sendall(
                b"GET / HTTP/1.1\r\nHost: edge\r\nX-Request-ID: large-head\r\nX-Large: "
                + b"x" * 5_000_000
                + b"\r\n\r\n"
            )
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
    assert not reached(litport, "large-head")


@WITH_NGINX
@WITH_HTTP2
def test_a_large_head_over_http_2_ends_at_the_edge(edge: Edge, litport: Platform) -> None:
    words = ["-H", "X-Request-ID: large-head-2", "-H", "X-Large: " + "x" * 50_000]
    words += ["-o", "/dev/null", "-w", "%{http_code}"]
    with edge.curl(*words, edge.url) as curl:
        status, _ = curl.communicate(timeout=30)
    assert status in (b"431", b"400", b"000")
    assert not reached(litport, "large-head-2")


@WITH_NGINX
@pytest.mark.long
def test_a_slow_head_and_a_silent_client_are_cut_off_in_time(edge: Edge, litport: Platform) -> None:
    lasted: dict[str, float] = {}

    def drip() -> None:
        with edge.wire() as wire:
            started = time.perf_counter()
            wire.sendall(b"GET / HTTP/1.1\r\nHost: edge\r\nX-Request-ID: slow-head\r\nX-Slow: ")
            wire.settimeout(1)
            while True:
                with contextlib.suppress(TimeoutError):
                    if not wire.recv(65536):
                        break
                try:
                    wire.sendall(b"x")
                except (ConnectionError, ssl.SSLError):
                    break
                assert time.perf_counter() - started < 30
            lasted["a head of a byte a second"] = time.perf_counter() - started

    def stay_silent() -> None:
        with socket.create_connection(("127.0.0.1", edge.port), timeout=30) as wire:
            started = time.perf_counter()
            with contextlib.suppress(ConnectionError):
                assert not wire.recv(1)
            lasted["no TLS handshake"] = time.perf_counter() - started

    threads = [threading.Thread(target=target) for target in (drip, stay_silent)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("seconds until cut off:", {what: round(seconds, 1) for what, seconds in lasted.items()})
    assert len(lasted) == len(threads)
    assert all(seconds < Limits().header_timeout_s + 3 for seconds in lasted.values())
    assert not reached(litport, "slow-head")


@WITH_NGINX
@pytest.mark.long
def test_a_body_of_100_mb_is_refused_before_any_of_it_is_sent(edge: Edge, litport: Platform) -> None:
    with edge.wire() as wire:
        head = "POST /predict/echo HTTP/1.1\r\nHost: edge\r\nX-Request-ID: large-body\r\n"
        wire.sendall(f"{head}Content-Length: {LARGE_BYTES}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
    assert not reached(litport, "large-body")


@WITH_NGINX
@WITH_HTTP2
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_body_of_100_mb_that_is_really_sent_is_refused(
    edge: Edge, litport: Platform, version: str, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE_BYTES)
    sent = [
        version,
        "-H",
        "X-Request-ID: sent-body",
        "-T",
        file.name,
        "-X",
        "POST",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{size_upload}",
    ]
    with edge.curl(*sent, f"{edge.url}/predict/echo") as curl:
        answer, _ = curl.communicate(timeout=60)
    status, size = answer.split()
    assert status == b"413"
    assert int(size) < LARGE_BYTES / 4
    assert not reached(litport, "sent-body")


@WITH_NGINX
@WITH_HTTP2
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_body_of_no_stated_length_is_cut_off_at_the_limit(
    edge: Edge, litport: Platform, version: str, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(4 * Limits().max_body_bytes)
    sent = [version, "-T", "-", "-X", "POST", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}"]
    assert CURL is not None
    common = ["-sS", "--cacert", str(edge.certificate), "-H", f"Authorization: Bearer {KEY}"]
    with (tmp_path / "large").open("rb") as body:
        words = [CURL, *common, *sent, f"{edge.url}/predict/echo"]
        done = subprocess.run(words, stdin=body, capture_output=True, check=False, timeout=120)
    status, size = done.stdout.split()
    assert status == b"413"
    assert int(size) < 2 * Limits().max_body_bytes  # what the kernel buffers on its way, curl counts as sent
    assert httpx.get(f"{litport.url}/health", timeout=10).status_code == 200


@WITH_NGINX
def test_a_body_within_the_limit_passes(edge: Edge) -> None:
    body = {"input": "x" * 3_000_000}
    answer = httpx.post(f"{edge.url}/predict/echo", json=body, headers=BEARER, verify=edge.trust, timeout=60)
    assert answer.json() == {"output": body["input"]}


@WITH_NGINX
def test_one_address_may_have_so_many_requests_at_a_time() -> None:
    def fewer(text: str) -> str:
        assert "limit_conn clients 256;" in text
        return text.replace("limit_conn clients 256;", "limit_conn clients 2;")

    with recorder(hold_s=1) as (port, heads), edge_before(port, fewer) as edge:
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.get(edge.url, verify=edge.trust, timeout=10))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "too_many_connections"
    assert len(heads) == 2


def test_the_edges_limits_are_those_of_the_settings() -> None:
    text = (EDGE / "nginx.conf").read_text(encoding="utf-8")
    limits = Limits()
    assert limits.request_timeout_s is not None
    expected = {
        "client_header_timeout": f"{limits.header_timeout_s:g}s",
        "large_client_header_buffers": f"2 {limits.max_header_bytes // 2**10}k",
        "client_max_body_size": f"{limits.max_body_bytes // 2**20}m",
        "client_body_timeout": f"{limits.body_timeout_s:g}s",
        "send_timeout": f"{limits.write_timeout_s:g}s",
        "keepalive_timeout": f"{limits.keep_alive_timeout_s:g}s",
        "proxy_read_timeout": f"{limits.request_timeout_s + 10:g}s",
    }
    assert {name: re.findall(rf"\b{name} ([^;]+);", text) for name in expected} == {
        name: [value] for name, value in expected.items()
    }
