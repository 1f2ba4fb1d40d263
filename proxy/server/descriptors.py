"""How many connections the process has descriptors for."""

import sys
from typing import Final

from proxy.edge.connections import Caps

WANTED: Final = 65_536
OWN: Final = 128  # journals, stores, the log, sockets that listen
UNKNOWN: Final = 8_192  # where the system tells no limit


def raise_limit() -> None:
    """Take what may be had without asking anybody: the default of 1,024 is for programs that call `select`."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on every platform

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def client_caps() -> Caps:
    """Half of the descriptors for clients: each may need another one for its provider.

    One address may have three quarters of them. That leaves room for others, and lets a load balancer, which is one address
    for all its clients, use nearly all there is.
    """
    total = max((_limit() - OWN) // 2, 16)
    return Caps(total, total * 3 // 4)


def _limit() -> int:
    if sys.platform == "win32":
        return UNKNOWN
    import resource  # noqa: PLC0415 - not on every platform

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED if soft == resource.RLIM_INFINITY else soft
