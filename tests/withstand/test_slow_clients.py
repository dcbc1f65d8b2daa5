"""Clients that are slow on purpose, by the hundreds: honest ones are answered all the same, and nothing is left."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Platform, serving
from tests.services.polling import wait_until
from tests.withstand.slow_clients import ATTACKS, INSTALL, Latencies, attacked, for_seconds, honest, installed

pytestmark = [pytest.mark.alone, pytest.mark.long]

_CONNECTIONS = 300
_IDLE = 2000
# Timings are printed, not promised, on a machine that has other work to do.
_P99_S = 2.0

needs_slowhttptest = pytest.mark.skipif(not installed(), reason=f"slowhttptest was not found: {INSTALL}")


@pytest.fixture(scope="module")
def attackable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A small model behind limits so short that they end an attack while it lasts."""
    folder = tmp_path_factory.mktemp("attackable")
    limits = [word for name in ("header", "body", "write") for word in (f"--limits.{name}_timeout_s", "3")]
    target = "tests/services/strangers/squares.py:SquaresAPI"
    with serving(folder, target, *limits, "--server.cache_dir", str(folder), timeout_s=60) as platform:
        yield platform


@pytest.fixture(scope="module")
def before(attackable: Platform) -> Latencies:
    """What an honest client sees while nobody attacks."""
    honest(attackable, for_seconds(1))
    return honest(attackable, for_seconds(4))


@needs_slowhttptest
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_honest_client_is_answered_during(attack: str, attackable: Platform, before: Latencies) -> None:
    at_rest = _descriptors(attackable)
    during, told = attacked(attackable, attack, 8, _CONNECTIONS)
    print(f"{attack}: p99 {during.p99_s * 1000:.1f} ms, {during.p99_s / before.p99_s:.2f} times that before; {told}")
    assert told.was_served
    assert during.failures == []
    assert len(during.seconds) > 20
    assert during.p99_s < _P99_S
    _wait_until_at_rest(attackable, at_rest)


def test_two_thousand_idle_connections_cost_nothing_but_their_descriptors(
    attackable: Platform, before: Latencies
) -> None:
    at_rest = _descriptors(attackable)
    with contextlib.ExitStack() as held:
        _allow_descriptors(held, _IDLE + 500)
        idle = [held.enter_context(_resting(attackable)) for _ in range(_IDLE)]
        during = honest(attackable, for_seconds(5))
        health = attackable.http.get("/health", timeout=10)
        open_then = _descriptors(attackable)
        assert all(_is_open(connection) for connection in idle)
    print(f"idle: p99 {during.p99_s * 1000:.1f} ms, {during.p99_s / before.p99_s:.2f} times that before")
    assert health.status_code == 200
    assert during.failures == []
    assert during.p99_s < _P99_S
    assert open_then >= _IDLE
    _wait_until_at_rest(attackable, at_rest)


def _resting(platform: Platform) -> socket.socket:
    """A connection that has had one answer and is kept, as a client's pool does."""
    address = httpx.URL(platform.url)
    connection = socket.create_connection((address.host, address.port), timeout=20)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while b'{"status":"ok"}' not in answer:
        piece = connection.recv(4096)
        assert piece, f"closed after {answer!r}"
        answer += piece
    return connection


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def _allow_descriptors(held: contextlib.ExitStack, wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def _descriptors(platform: Platform) -> int:
    return sum(1 for _ in Path(f"/proc/{platform.process.pid}/fd").iterdir())


def _wait_until_at_rest(platform: Platform, at_rest: int) -> None:
    wait_until(
        lambda: _descriptors(platform) <= at_rest + 3,
        problem=lambda: f"{_descriptors(platform)} descriptors, {at_rest} before",
    )
