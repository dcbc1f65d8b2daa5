"""Which addresses other machines may reach."""

import socket

import pytest

from servers.gateway.address import is_public


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
