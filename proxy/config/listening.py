"""Which local providers answer at their usual address: the only code of `proxy.config` that opens a socket."""

import errno
import selectors
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final
from urllib.parse import urlsplit

from proxy.config.address import expand
from proxy.providers.rows import CATALOGUE
from proxy.terms import ProviderId

WAIT_S: Final = 0.1  # in total; a loopback connection is accepted or refused within 1 ms
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def usual_ports(environ: Mapping[str, str]) -> dict[ProviderId, int]:
    """The ports to try: those of local providers that the environment does not move elsewhere."""
    ports: dict[ProviderId, int] = {}
    for row in CATALOGUE.values():
        address = expand(row.base_url, environ)
        port = urlsplit(address.url).port
        if row.local and not address.moved and port is not None:
            ports[row.id] = port
    return ports


def listening(environ: Mapping[str, str]) -> frozenset[ProviderId]:
    """The local providers whose usual port accepts a connection. Takes at most 100 ms, whatever is there."""
    return accepting(usual_ports(environ))


def accepting(ports: Mapping[ProviderId, int]) -> frozenset[ProviderId]:
    """Of these loopback ports, all tried at once, the owners of those that accept a connection."""
    found: set[ProviderId] = set()
    deadline = time.monotonic() + WAIT_S
    with ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for provider_id, port in ports.items():
            for family, host in _LOOPBACK:
                connection = _begin(stack, family, (host, port))
                if connection is not None:
                    waiting.register(connection, selectors.EVENT_WRITE, (connection, provider_id))
        while waiting.get_map() and (left_s := deadline - time.monotonic()) > 0:
            for key, _ in waiting.select(left_s):
                connection, provider_id = key.data
                waiting.unregister(connection)
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(provider_id)
    return frozenset(found)


def _begin(stack: ExitStack, family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket | None:
    """A connection under way; None where this machine lacks the family or refuses at once."""
    try:
        connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    except OSError:
        return None
    connection.setblocking(False)
    status = connection.connect_ex(address)
    return connection if status in {0, errno.EINPROGRESS, errno.EWOULDBLOCK} else None
