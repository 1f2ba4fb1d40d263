"""Counts the wrong keys of each address, so that guessing is told to stop and fills no log. Fed with the time.

A wrong key costs the same as a right one, and keys are too long to be guessed: the count protects the log and tells whoever
has a wrong key in a loop. It never judges a right one, or anybody who shares an address (one machine, one proxy) could
lock the operator out. Memory is bounded: the address that began longest ago is forgotten first.
"""

from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple

WRONG_MAX: Final = 20  # a minute; a person who pastes a wrong key stays below, a loop does not
WINDOW_S: Final = 60.0
PEERS_MAX: Final = 4096


class Wrong(NamedTuple):
    """``number``: the how-manieth of its window this one is. ``left_s``: until the window ends."""

    number: int
    left_s: float

    @property
    def is_too_many(self) -> bool:
        return self.number > WRONG_MAX

    @property
    def is_first_too_many(self) -> bool:
        return self.number == WRONG_MAX + 1


class WrongKeys:
    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}  # in the order in which they began

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, peer: str, now: float) -> Wrong:
        """Count one more wrong key of `peer`. Units: monotonic seconds."""
        began, count = self._windows.get(peer, (now, 0))
        if now - began >= WINDOW_S:
            began, count = now, 0
        if count == 0:
            self._windows.pop(peer, None)
            if len(self._windows) >= PEERS_MAX:
                del self._windows[next(iter(self._windows))]
        self._windows[peer] = began, count + 1
        return Wrong(count + 1, began + WINDOW_S - now)


def peer_of(address: str) -> str:
    """Whom an address stands for: itself, or its /64, which is what one subscriber of IPv6 has."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
