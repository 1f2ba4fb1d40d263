"""Which local providers answer at their usual address: the only code of `proxy.config` that opens a socket."""

import errno
import json
import selectors
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

from proxy.config.address import expand
from proxy.providers.rows import CATALOGUE
from proxy.terms import ProviderId

WAIT_S: Final = 0.1  # in total; a loopback connection is accepted or refused within 1 ms
ANSWER_S: Final = 0.4  # then for an answer; a list of models is made in a millisecond
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
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
    """The local providers that list their models at their usual address. Takes at most half a second, whatever is there.

    That something accepts connections on port 8080 says little: all kinds of programs do.
    """
    ports = usual_ports(environ)
    found = accepting(ports)
    if not found:
        return found
    with ThreadPoolExecutor(len(found)) as pool:
        answers = pool.map(lambda provider_id: lists_models(ports[provider_id]), found)
        return frozenset(provider_id for provider_id, answer in zip(found, answers, strict=True) if answer)


def lists_models(port: int) -> bool:
    """Whether `GET /v1/models` on this loopback port answers as such a server does, if only that it wants a key."""
    connection = HTTPConnection("localhost", port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/v1/models", headers={"accept": "application/json"})
        answer = connection.getresponse()
        document = json.loads(answer.read(ANSWER_BYTES_MAX))
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return isinstance(document, dict) and ("data" in document or (answer.status == 401 and "error" in document))


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
