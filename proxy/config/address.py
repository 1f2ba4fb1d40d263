"""Base URLs: `${NAME}` expanded from the environment, and which addresses a provider may have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from yarl import URL

URL_CHARS_MAX: Final = 2048
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")
_NUMBER_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HOST_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Expansion:
    """A template and what the environment made of it; ``moved`` says that a variable which is set had a part in it."""

    url: str
    unset: tuple[str, ...] = ()
    moved: bool = False
    malformed: bool = False


def expand(template: str, environ: Mapping[str, str]) -> Expansion:
    """`${NAME}` and `${NAME:-default}` replaced; an empty value counts as unset, and a final slash is dropped."""
    unset: list[str] = []
    moved = False

    def value(match: re.Match[str]) -> str:
        nonlocal moved
        found = environ.get(match[1], "").strip()
        moved = moved or bool(found)
        if not found and match[2] is None:
            unset.append(match[1])
        return (found or match[2] or "").rstrip("/")

    url = _VARIABLE.sub(value, template).rstrip("/")
    return Expansion(url, tuple(dict.fromkeys(unset)), moved, malformed="${" in _VARIABLE.sub("", template))


def refusal(url: str, *, allow_private: bool) -> str | None:
    """Why a provider may not have this base URL, None where it may. The text never quotes more of it than the host."""
    if len(url) > URL_CHARS_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return f"expected a URL of at most {URL_CHARS_MAX} printable ASCII characters without spaces"
    try:
        parts = URL(url, encoded=True)  # as the client reads it: a second parser could find another host
        host, port = parts.host, parts.explicit_port
    except ValueError:
        return "expected a URL such as https://api.example.com/v1: its host or port cannot be read"
    if parts.scheme not in {"https", "http"} or not host:
        return "expected a URL that begins with https:// or http:// and a host"
    if port == 0:
        return "port 0 is no port"
    return _foreign_part(url, parts) or _host_refusal(parts.scheme, host.rstrip("."), allow_private)


def _foreign_part(url: str, parts: URL) -> str | None:
    if "@" in parts.raw_authority:
        return "a URL here has no user name or password. Name the credential with api_key: env:NAME"
    if "?" in url or "#" in url:
        return "a base URL has no query and no fragment"
    if any(step in {".", ".."} for step in parts.raw_path.replace("%2e", ".").replace("%2E", ".").split("/")):
        return "a base URL has no '.' or '..' in its path"
    return None


def _host_refusal(scheme: str, host: str, allow_private: bool) -> str | None:
    address = _address(host)
    if address is None:
        if _NUMBER_LABEL.fullmatch(host.rpartition(".")[2]):
            return f"host '{host}' is a number in disguise. Write an address as four decimal numbers"
        if not _HOST_NAME.fullmatch(host) or ".." in host:
            return f"host '{host}' is not a host name"
    if is_loopback(host) or allow_private:
        return None
    private = _is_private(address) if address is not None else host.endswith((".internal", ".local"))
    if private:
        return f"host '{host}' is private. Add allow_private: true if that is meant"
    if scheme == "http":
        return f"http to '{host}' would send the credential in clear. Use https, or add allow_private: true"
    return None


def is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def is_private(host: str) -> bool:
    """Whether a host is this machine's or a private network's: by its address, its ending, or a name without a dot."""
    address = _address(host)
    if address is not None:
        return _is_private(address)
    return is_loopback(host) or "." not in host or host.endswith((".internal", ".local"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_private(address: IPv4Address | IPv6Address) -> bool:
    # Link-local holds the metadata services of the clouds (169.254.169.254, fd00:ec2::254).
    return not address.is_global or address.is_multicast
