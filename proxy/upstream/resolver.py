"""Name resolution that answers with public addresses only, so that a provider's name cannot be pointed into this network.

The check is made on the addresses that the connection is then opened to, so a name cannot change between check and use.
Hosts that the configuration allows to be private are exempt: those with `allow_private: true`, and `localhost`. No name ever
leads to a cloud's metadata service, though: what answers there is the machine's own credentials. An address that is written
as numbers in the configuration is not resolved, and so is not looked at here.
"""

import ipaddress
import socket
from collections.abc import Container
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

# Link-local holds AWS', Azure's, GCP's and most others'; the rest stand alone (AWS over IPv6, Alibaba, Oracle before 2021).
_METADATA: Final = tuple(
    map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"))
)
# IPv4 in the last 32 bits: NAT64 (RFC 6052), NAT64 of one's own network (RFC 8215), IPv4-compatible (RFC 4291).
_EMBEDDING: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/96", "::/96")))


class PublicResolver(AbstractResolver):
    """Resolves by ``names``, which is the system's resolver in a thread, and drops every address that is not to be used."""

    def __init__(self, private: Container[str], names: AbstractResolver | None = None) -> None:
        self._private = private
        self._resolver = ThreadedResolver() if names is None else names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        fits = is_no_metadata if host in self._private else is_public
        fitting = [result for result in results if fits(result["host"])]
        if not fitting:
            if fits is is_no_metadata:
                raise OSError(None, f"{host} resolves to a cloud's metadata service, which is no provider")
            raise OSError(None, f"{host} resolves to no public address; set allow_private: true if it may be private")
        return fitting

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an address is globally reachable, looking through IPv4 in IPv6."""
    ip = _seen_through(address)
    return ip.is_global and not ip.is_multicast and is_no_metadata(address)


def is_no_metadata(address: str) -> bool:
    ip = _seen_through(address)
    return not any(ip in network for network in _METADATA if network.version == ip.version)


def _seen_through(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address in an IPv6 one (mapped, 6to4, NAT64, compatible), or else the address itself."""
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(ip, ipaddress.IPv4Address) or ip.is_loopback or ip.is_unspecified:
        return ip
    inner = ip.ipv4_mapped or ip.sixtofour
    if inner is None and any(ip in network for network in _EMBEDDING):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip if inner is None else inner
