"""Which addresses other machines may reach, and what is told of a port in use."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from configs.errors import UserError
from servers.gateway import port_holder
from servers.gateway.address import bind, is_public
from tests.services.ports import LOOPBACK, port_in_use


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "127.255.0.9", "::1", "localhost"])
def test_loopback_is_not_public(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5", "2001:db8::1", "128.0.0.1", "", "a..b"])
def test_any_other_address_is_public_and_so_is_what_cannot_be_resolved(host: str) -> None:
    assert is_public(host)


@pytest.mark.parametrize(("second", "public"), [("127.0.1.1", False), ("10.0.0.1", True)])
def test_a_name_is_public_when_any_of_its_addresses_is(
    monkeypatch: pytest.MonkeyPatch, second: str, public: bool
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", second)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert is_public("this-machine") is public


def test_a_port_in_use_is_told_with_the_process_that_has_it_and_a_port_that_is_free() -> None:
    with port_in_use() as port, contextlib.ExitStack() as next_port:
        with contextlib.suppress(OSError):  # somebody else may have it
            next_port.enter_context(socket.create_server((LOOPBACK, port + 1)))
        with pytest.raises(UserError) as problem:
            bind(LOOPBACK, port, reserved_port=port + 2)
    message, _, suggestion = str(problem.value).rpartition(" --server.port ")
    assert message == f"port {port} of {LOOPBACK} is in use by process {os.getpid()} (pytest); choose another, as in"
    assert int(suggestion) > port + 2, "neither the next, which is in use, nor the one that the metrics page will take"
    bind(LOOPBACK, int(suggestion)).close()


def test_a_holder_that_cannot_be_seen_is_not_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(port_holder, "PROC", tmp_path)
    with port_in_use() as port:
        assert port_holder.describe_holder(LOOPBACK, port) is None
