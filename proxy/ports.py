"""The ports: what the phases need of the world, as Protocols. Each is implemented once per technology.

The phases import this and nothing that touches a socket. What can fail by itself returns a value (`Fault`). Two
exceptions cross a port: `ClientGone`, because nothing can be done for a client that is not there, and a store's
`StoreAway`, because every caller has a declared way to go on without the store.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.core.breaker import Subject
from proxy.core.failure import FailureKind
from proxy.core.routing import Target

HeaderPairs = Iterable[tuple[str, str]]


class ClientGone(Exception):  # noqa: N818 - it names what happened, which is no defect
    """The client's connection is gone; whatever was being written was lost."""


class BodyRefused(Exception):  # noqa: N818 - likewise
    """The request body cannot be had: too large, too slow, undecodable."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong on the wire. ``detail`` is for the log and names no credential; ``told``: for the client too."""

    kind: FailureKind
    detail: str
    told: bool = False


class RequestBody(Protocol):
    """A request body that is passed on as it comes, and may be passed on again."""

    @property
    def length(self) -> int | None:
        """Its length in bytes, decoded; None where that is not known yet."""
        ...

    async def at(self, position: int) -> bytes:
        """Bytes from a position on that was reached before; empty at the end. Raises `BodyRefused`, `ClientGone`."""
        ...

    def close(self) -> None:
        """Let go of what was kept. May be called more than once."""
        ...


class Downstream(Protocol):
    """The client's side of one exchange. Header names are matched without case."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def body(self, bytes_max: int) -> bytes:
        """The whole request body, decoded. Raises `BodyRefused`, `ClientGone`."""
        ...

    def upload(self, bytes_max: int) -> RequestBody:
        """The request body as it comes, decoded. Raises `BodyRefused`."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the client left an exchange that outlives it."""
        ...

    def outlive(self) -> None:
        """From now on the client may leave: what is sent then goes nowhere, and nothing raises `ClientGone`."""
        ...

    async def begin(self, status: int, headers: HeaderPairs) -> None:
        """Send the head of a streamed answer. Raises `ClientGone`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes of a streamed answer; returns when there is room for more. Raises `ClientGone`."""
        ...

    async def end(self) -> None:
        """Finish a streamed answer well: the last chunk. Raises `ClientGone`."""
        ...

    def break_off(self) -> None:
        """Finish a streamed answer so that every client notices: what was written arrives, the last chunk never."""
        ...

    def abort(self) -> None:
        """Drop the connection of a client that takes nothing; what was written may be lost."""
        ...

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        """Send a whole answer. Raises `ClientGone`."""
        ...


class Reply(Protocol):
    """One upstream answer, its body still to come."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def header_pairs(self) -> HeaderPairs: ...

    async def read(self) -> "bytes | Fault":
        """The next bytes, decoded; empty at the clean end of the body. Cancelling it leaves the reply to be closed."""
        ...

    def close(self) -> None:
        """Drop the connection now, and what the upstream is still sending. May be called at any time, more than once."""
        ...

    def finish(self) -> None:
        """The answer is over: keep the connection if the upstream ends its body at once, else drop it."""
        ...


@dataclass(slots=True)
class Call:
    """One request to one target. ``fresh``: not on a pooled connection."""

    target: Target
    url: str
    headers: Mapping[str, str]
    body: bytes | AsyncIterable[bytes]
    connect_s: float
    fresh: bool = False
    method: str = "POST"


class Upstream(Protocol):
    """Sends one call. Expected failures come back as a `Fault`."""

    async def send(self, call: Call) -> "Reply | Fault": ...


class ExchangeLog(Protocol):
    """Told of every exchange, once, when it is over, and of what happens to the process. Never blocks, never raises."""

    def exchange(self, tell: Callable[[], Mapping[str, object]]) -> None:
        """``tell`` gives the record; it is called once, soon, when lines are written and not while an answer waits."""
        ...

    def event(self, message: str, **facts: object) -> None: ...

    def bug(self, exchange_id: str, error: BaseException) -> None: ...

    def close(self) -> None: ...


class StoreAway(Exception):  # noqa: N818 - it names what happened, which is no defect
    """A store did not do what was asked, or nobody knows whether it did. The message says why and names no credential."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """How a store is, for /health. Units: Unix seconds. ``last_error`` stays after it has come back."""

    where: str  # without credentials
    down_since: float | None
    last_error: str | None

    @property
    def up(self) -> bool:
        return self.down_since is None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds of one subject. ``version`` 0: nothing."""

    version: int
    data: bytes


NOTHING_STORED = Stored(0, b"")


@dataclass(frozen=True, slots=True)
class Change:
    """Somebody has stored something, perhaps the one who is told."""

    subject: Subject
    stored: Stored


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer to who asked for a lease. ``wait_s`` 0: it is theirs; else somebody else holds it for so long.

    ``stored`` is what the store holds of the subject, so that who takes a lease knows what is known.
    """

    wait_s: float
    stored: Stored


class BreakerStore(Protocol):
    """What all processes know of breakers, and who may probe. Knows nothing of what the bytes mean.

    Errors: `StoreAway` from everything but `listen`. Concurrency: `swap` and `lease` are atomic over all processes. Bounds:
    what is stored is gone after its time, and a store that is full drops what would be gone first.
    """

    async def load(self) -> Mapping[Subject, Stored]:
        """Everything that is held."""
        ...

    async def swap(self, subject: Subject, expected: int, data: bytes, keep_s: float) -> Stored | None:
        """Store `data` as version `expected` + 1 if the version held is `expected`. None: done; else what is held."""
        ...

    async def lease(self, subject: Subject, owner: str, hold_s: float) -> Lease:
        """Take the subject's one lease for `hold_s`, unless somebody else has it. An owner who has it has it for longer."""
        ...

    async def unlease(self, subject: Subject, owner: str) -> None:
        """Give a lease back; nothing where it is not this owner's any more."""
        ...

    async def listen(self, told: Callable[[Change | None], None]) -> None:
        """Call `told` for every swap, soon, until cancelled. None: some may have been missed, so load."""
        ...
