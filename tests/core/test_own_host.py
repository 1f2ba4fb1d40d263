"""Which Host headers mean this server: addresses, the loopback's name, and the names that it was told."""

import pytest

from proxy.core.own_host import is_own_host

OURS = ["localhost", "LOCALHOST:4020", "localhost.", "127.0.0.1", "127.0.0.1:4020", "[::1]", "[::1]:4020", "192.168.1.5",
        "[fd00::5]:80", "proxy.example", "Proxy.Example:4020", "proxy.example."]  # fmt: skip
FOREIGN = ["", "evil", "evil.example", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example", "xlocalhost",
           "proxy.example.evil", "sub.proxy.example", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost:4020:1",
           "localhost/", "user@localhost", "localhost, evil", "[evil]", "[::1", "localhost ", "local\u017fost", "::1",
           "localhost:port", "localhost..", "a" * 300]  # fmt: skip


@pytest.mark.parametrize("field", OURS)
def test_ours(field: str) -> None:
    assert is_own_host([field], {"proxy.example"})


@pytest.mark.parametrize("field", FOREIGN)
def test_foreign(field: str) -> None:
    assert not is_own_host([field], {"proxy.example"})


def test_none_and_two_are_nobody() -> None:
    assert not is_own_host([], {"proxy.example"})
    assert not is_own_host(["localhost", "localhost"], {"proxy.example"})
