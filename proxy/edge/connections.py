"""The clients' connections: how many there may be, and which have been slow for too long.

One coarse timer for all of them. It looks only at connections that wait for a head, in the order in which they began, and at
those whose client does not take what is written; a busy server has few of either.
"""

import asyncio
from typing import Final, NamedTuple, Protocol

TICK_S: Final = 0.5
HEAD_S: Final = 10.0  # from the connection's begin, or a head's first byte, to the head's end
# A client that takes nothing for so long. Longer than the exchange's own bound, which ends it with a word in the books.
UNREAD_S: Final = 35.0
TOLD_EVERY_S: Final = 10.0  # a crowd at the door fills no log


class Caps(NamedTuple):
    """How many connections there may be at once: in all, and from one address."""

    total: int
    per_address: int


class Guarded(Protocol):
    """One connection, as its protocol sees it."""

    def head_is_late(self) -> None: ...
    def unsent_bytes(self) -> int: ...
    def abort(self) -> None: ...


class Connections:
    """All connections of a process, over all its ports."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._addresses: dict[Guarded, str] = {}
        self._of_address: dict[str, int] = {}
        self._heads: dict[Guarded, float] = {}  # when each is late; in that order
        self._unread: dict[Guarded, tuple[float, int]] = {}  # since when, and how much is unsent
        self._ticking = False
        self._told_at = float("-inf")

    def __len__(self) -> int:
        return len(self._addresses)

    def enter(self, connection: Guarded, address: str) -> bool:
        """Whether there is room. Its head is waited for from now on."""
        of_address = self._of_address.get(address, 0)
        if len(self._addresses) >= self._caps.total or of_address >= self._caps.per_address:
            return False
        self._addresses[connection] = address
        self._of_address[address] = of_address + 1
        self.head_begins(connection)
        return True

    def is_news(self) -> bool:
        """Whether it is time to tell again that there was no room."""
        now = asyncio.get_running_loop().time()
        if now - self._told_at < TOLD_EVERY_S:
            return False
        self._told_at = now
        return True

    def leave(self, connection: Guarded) -> None:
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._heads.pop(connection, None)
        self._unread.pop(connection, None)
        left = self._of_address.pop(address) - 1
        if left:
            self._of_address[address] = left

    def head_begins(self, connection: Guarded) -> None:
        self._heads[connection] = asyncio.get_running_loop().time() + HEAD_S
        self._tick_on()

    def head_ends(self, connection: Guarded) -> None:
        self._heads.pop(connection, None)

    def unread(self, connection: Guarded) -> None:
        """What was written to it waits for its client."""
        if connection in self._addresses:
            self._unread[connection] = asyncio.get_running_loop().time(), connection.unsent_bytes()
            self._tick_on()

    def read(self, connection: Guarded) -> None:
        self._unread.pop(connection, None)

    def abort_all(self) -> None:
        """The process ends, and waits for nobody who does not read."""
        for connection in tuple(self._addresses):
            connection.abort()

    def _tick_on(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = asyncio.get_running_loop().time()
        late: list[Guarded] = []
        for connection, late_at in self._heads.items():
            if late_at > now:
                break
            late.append(connection)
        for connection in late:
            del self._heads[connection]
            connection.head_is_late()
        for connection, (since, unsent) in tuple(self._unread.items()):
            left = connection.unsent_bytes()
            if left != unsent:
                self._unread[connection] = now, left
            elif now - since >= UNREAD_S:
                del self._unread[connection]
                connection.abort()
        if self._heads or self._unread:
            self._tick_on()
