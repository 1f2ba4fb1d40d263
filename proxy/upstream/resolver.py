"""Name resolution that answers with public addresses only, so that a provider's name cannot be pointed into this network.

The check is made on the addresses that the connection is then opened to, so a name cannot change between check and use.
Hosts that the configuration allows to be private are exempt: those with `allow_private: true`, and `localhost`.
"""

import ipaddress
import socket
from collections.abc import Container

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver


class PublicResolver(AbstractResolver):
    """Resolves in a thread; drops every address that is not globally reachable, but for the hosts in ``private``."""

    def __init__(self, private: Container[str]) -> None:
        self._private = private
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        if host in self._private:
            return results
        public = [result for result in results if is_public(result["host"])]
        if not public:
            raise OSError(None, f"{host} resolves to no public address; set allow_private: true if it may be private")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an address is globally reachable, looking through IPv4 in IPv6 (mapped, 6to4, NAT64)."""
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast
