"""Base URLs: what the environment makes of them, and which ones are refused."""

import pytest

from proxy.config.address import URL_CHARS_MAX, Expansion, expand, is_loopback, refusal

ENVIRON = {"SET": "https://set.example.com/", "BLANK": "  "}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("https://a.example.com/v1/", Expansion("https://a.example.com/v1")),
        ("${SET}/v1", Expansion("https://set.example.com/v1", moved=True)),
        ("${SET:-https://other}/v1", Expansion("https://set.example.com/v1", moved=True)),
        ("${UNSET:-http://localhost:1/}/v1", Expansion("http://localhost:1/v1")),
        ("${BLANK:-http://localhost:1}/v1", Expansion("http://localhost:1/v1")),
        ("${UNSET}/v1", Expansion("/v1", unset=("UNSET",))),
        ("${UNSET}${BLANK}${UNSET}", Expansion("", unset=("UNSET", "BLANK"))),
        ("${SET", Expansion("${SET", malformed=True)),
        ("${a b}", Expansion("${a b}", malformed=True)),
        ("$SET", Expansion("$SET")),
    ],
)
def test_expand(template: str, expected: Expansion) -> None:
    assert expand(template, ENVIRON) == expected


def test_a_value_is_not_expanded_again() -> None:
    assert expand("${A}", {"A": "${B}", "B": "x"}) == Expansion("${B}", moved=True)


FINE = [
    "https://api.example.com/v1",
    "https://api.example.com:8443/v1",
    "https://8.8.8.8/v1",
    "https://[2606:4700::1111]/v1",
    "http://localhost:11434/v1",
    "http://box.localhost/v1",
    "http://127.0.0.1:8000/v1",
    "http://127.8.9.10/v1",
    "http://[::1]:8000/v1",
    "http://[::ffff:127.0.0.1]/v1",
    "https://a_b.example.com/v1",
    "https://1password.example/v1",
]


@pytest.mark.parametrize("url", FINE)
def test_fine(url: str) -> None:
    assert refusal(url, allow_private=False) is None


# Fine only where `allow_private` says that it is meant.
PRIVATE = [
    "http://api.example.com/v1",
    "http://gpu:8000/v1",
    "http://10.0.0.5:8000/v1",
    "https://10.0.0.5/v1",
    "https://192.168.1.1/v1",
    "https://172.16.0.1/v1",
    "https://100.64.0.1/v1",
    "https://169.254.169.254/latest/meta-data",
    "http://169.254.169.254/latest/meta-data",
    "https://metadata.google.internal/v1",
    "https://printer.local/v1",
    "https://0.0.0.0/v1",
    "https://[fd00:ec2::254]/v1",
    "https://[fe80::1]/v1",
    "https://[::ffff:10.0.0.1]/v1",
    "https://224.0.0.1/v1",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_private(url: str) -> None:
    assert "allow_private: true" in str(refusal(url, allow_private=False))
    assert refusal(url, allow_private=True) is None


# Never fine.
REFUSED = [
    ("", "begins with https:// or http://"),
    ("api.example.com/v1", "begins with https:// or http://"),
    ("ftp://example.com", "begins with https:// or http://"),
    ("file:///etc/passwd", "begins with https:// or http://"),
    ("https:///v1", "begins with https:// or http://"),
    ("https://user@example.com/v1", "no user name or password"),
    ("https://user:pass@example.com/v1", "no user name or password"),
    ("https://@example.com/v1", "no user name or password"),
    ("https://example.com/v1?x=1", "no query and no fragment"),
    ("https://example.com/v1?", "no query and no fragment"),
    ("https://example.com/v1#x", "no query and no fragment"),
    ("https://example.com/a/../b", "no '.' or '..'"),
    ("https://example.com/a/%2e%2E/b", "no '.' or '..'"),
    ("https://example.com:0/v1", "port 0"),
    ("https://example.com:70000/v1", "cannot be read"),
    ("https://example.com:x/v1", "cannot be read"),
    ("https://[::1/v1", "cannot be read"),
    ("https://2130706433/v1", "a number in disguise"),
    ("https://0x7f000001/v1", "a number in disguise"),
    ("https://0x7f.1/v1", "a number in disguise"),
    ("http://127.1/v1", "a number in disguise"),
    ("http://0177.0.0.1/v1", "a number in disguise"),
    ("http://127.0.0.1./v1", None),
    ("https://example.com./v1", None),
    ("https://exa mple.com/v1", "printable ASCII"),
    ("https://example.com\\@evil.com/v1", "printable ASCII"),
    ("https://example.com/\r\nx", "printable ASCII"),
    ("https://exämple.com/v1", "printable ASCII"),
    ("https://a..b/v1", "is not a host name"),
    ("https://-a/v1", "is not a host name"),
    (f"https://example.com/{'a' * URL_CHARS_MAX}", "printable ASCII"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
@pytest.mark.parametrize("allow_private", [False, True])
def test_refused(url: str, why: str | None, allow_private: bool) -> None:
    told = refusal(url, allow_private=allow_private)
    assert told is None if why is None else why in str(told)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("example.com", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
