"""The ports: what the phases need of the world, as Protocols. Each is implemented once per technology.

The phases import this and nothing that touches a socket. What can fail by itself returns a value (`Fault`). Two
exceptions cross a port: `ClientGone`, because nothing can be done for a client that is not there, and a store's
`StoreAway`, because every caller has a declared way to go on without the store.
"""

from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from proxy.core.audit import Act, AuditEntry, AuditFilter, AuditHead, AuditPage
from proxy.core.breaker import Subject
from proxy.core.budget import AlertLevel, Audit, Book, BudgetLease, PayerId, Settlement, Standing
from proxy.core.budget_words import BudgetAlert
from proxy.core.cache_selector import Selector
from proxy.core.cached_answer import CachedAnswer
from proxy.core.event import EventKind
from proxy.core.failure import FailureKind
from proxy.core.key_record import KeyRecord
from proxy.core.ledger import Booked, Cursor, Intent, LedgerFilter, LedgerRow, Page, Spender
from proxy.core.limiting import LimitClaim, LimitId, LimitLease, LimitSettlement, LimitStanding, Taken
from proxy.core.rollup import Measures
from proxy.core.routing import Target
from proxy.core.summary import Span, Summary
from proxy.core.trace import TraceContext, TraceSpan
from proxy.core.window import Window
from proxy.terms import AccountId, CacheKey, ExchangeId, Generation, NanoUsd, VirtualKeyId

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


class Outlet(Protocol):
    """Where an answer goes: to a client, or to several."""

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


class Downstream(Outlet, Protocol):
    """The client's side of one exchange. Header names are matched without case."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def peer(self) -> str:
        """The address that it comes from; empty where it has none."""
        ...

    async def body(self, bytes_max: int) -> bytes:
        """The whole request body, decoded. Raises `BodyRefused`, `ClientGone`."""
        ...

    def upload(self, bytes_max: int) -> RequestBody:
        """The request body as it comes, decoded. Raises `BodyRefused`."""
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


class StoreUnusable(Exception):  # noqa: N818 - likewise
    """This version cannot use the store, and waiting changes nothing. The message says why and what to do."""


class Ledger(Protocol):
    """The books: rows, written once each, and their daily roll-ups.

    Concurrency: any number of tasks; several processes may share one store. Errors: every method raises `StoreAway`
    and `StoreUnusable`. Units: Unix microseconds, nano-USD, days since 1970-01-01 UTC.
    """

    async def open(self) -> None:
        """Connect, and bring the schema up to date. The other methods do so by themselves if it was not done."""
        ...

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        """Add the rows whose ids are not there yet, with what they add to the roll-ups, at once; how many were new.

        May be repeated, also where it is not known whether it was done: a row counts once.
        """
        ...

    async def row(self, exchange_id: str, account: str | None = None) -> LedgerRow | None:
        """The row of an id, or the latest of those with this request id; of one account's alone, where one is named."""
        ...

    async def page(self, wanted: LedgerFilter, limit: int, after: Cursor | None = None) -> Page:
        """At most `limit` rows by their start, newest first, behind the cursor."""
        ...

    async def booked(self, after_seq: int, limit: int, wanted: LedgerFilter | None = None) -> tuple[Booked, ...]:
        """At most `limit` rows in the order in which they were booked, behind a place in it: misses none, ever."""
        ...

    async def newest_seq(self) -> int:
        """The last place in the order of booking; 0 where nothing is booked."""
        ...

    async def spent(self, by: Spender, name: str, since_us: int, until_us: int) -> int:
        """The cost of the requests of an account or a virtual key, or of everybody (``name`` ''), that started in the span.

        Units: nano-USD; [since, until).
        """
        ...

    async def summary(self, span: Span, account: str | None = None) -> Summary:
        """The roll-ups of whole days, for everyone or for one account."""
        ...

    async def days(self, span: Span, account: str | None = None) -> tuple[tuple[int, Measures], ...]:
        """The sums of each day on which there was anything, in order."""
        ...

    async def forget(self, before_us: int, rows_max: int) -> int:
        """Remove at most `rows_max` rows that started before then, the oldest first; how many. The roll-ups stay.

        A row that is delivered again after it was forgotten counts again: forget nothing younger than a journal may be.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BooksState:
    """For `/health`. ``state``: `ok`; `behind` (the ledger is away, rows are spooled); `refusing` (see ``trouble``).

    Units: seconds, bytes, rows since start. ``inherited``: rows of dead processes; ``interrupted`` are among them.
    """

    state: str
    trouble: str | None
    error: str | None
    away_s: float | None
    waiting_rows: int
    spool_bytes: int
    delivered: int
    inherited: int
    interrupted: int
    damaged: int
    lost: int


class Books(Protocol):
    """Where the phases write: what is begun and what is settled, on its way to the `Ledger`. Never blocks, never raises."""

    @property
    def trouble(self) -> str | None:
        """Why new requests must be refused (503) and readiness fail; None where they may come."""
        ...

    def intend(self, intent: Intent) -> bool:
        """Before an attempt is sent. False: it could not be written down, so it must not be sent (503)."""
        ...

    def book(self, row: LedgerRow) -> None:
        """An exchange is over. When it returns, the death of the process loses the row no more."""
        ...


class AuditLog(Protocol):
    """What was done to the proxy, by whom: entries that are added and never changed. See `proxy.core.audit` for the chain.

    Concurrency: any number of tasks; several processes may share one store. Errors: every method raises `StoreAway`
    and `StoreUnusable`. Units: Unix microseconds.
    """

    async def open(self) -> None:
        """Connect, and bring the schema up to date. The other methods do so by themselves if it was not done."""
        ...

    async def append(self, act: Act) -> AuditEntry:
        """Add one entry: it has the next number and is chained to the one before, whoever else adds one.

        When it returns, the entry is kept. Where it raises `StoreAway`, nobody knows.
        """
        ...

    async def page(self, wanted: AuditFilter, limit: int, before: int | None = None) -> AuditPage:
        """At most `limit` entries, newest first, with numbers below `before`."""
        ...

    async def read(self, after: int, limit: int) -> tuple[AuditEntry, ...]:
        """At most `limit` entries in their order, with numbers above `after`, as they stand in the store."""
        ...

    async def head(self) -> AuditHead:
        """Where the chain ends."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ConfigState:
    """How a process stands with its routes file. Units: Unix seconds.

    Shapes: ``path``, ``sha256`` and ``loaded_at`` are of the table that is served. ``problems`` are why the last reload
    changed nothing, since ``failed_at``, and empty where it did not fail. ``changes`` are the last reload's, in words.
    """

    path: str
    sha256: str
    loaded_at: float
    reloads: int = 0
    failed_at: float | None = None
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def reload_failed(self) -> bool:
        return bool(self.problems)


class Configuration(Protocol):
    """The routes file, and how the process follows it."""

    @property
    def state(self) -> ConfigState: ...

    async def reload(self, why: str) -> ConfigState:
        """Read the file again, and serve it if nothing is wrong with it; how that ended is in the state."""
        ...


class ExchangeLog(Protocol):
    """Told of every exchange, once, when it is over, and of what happens to the process. Never blocks, never raises."""

    def exchange(self, tell: Callable[[], Mapping[str, object]]) -> None:
        """``tell`` gives the record; it is called once, soon, when lines are written and not while an answer waits."""
        ...

    def event(self, message: str, **facts: object) -> None: ...

    def bug(self, exchange_id: str, error: BaseException) -> None: ...

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these stand in no line, whoever wrote it."""
        ...

    def close(self) -> None: ...


class Meter(Protocol):
    """Counts, for `/metrics`. Never blocks, never raises, keeps nothing of what it is told of."""

    def exchange(self, row: LedgerRow, tried: Iterable[tuple[str, str]], overhead_s: float | None) -> None:
        """An exchange is over. ``tried``: of each attempt the provider and how it went, in a word of the code's."""
        ...

    def refused(self, api: str, status: int, outcome: str) -> None:
        """A request began no exchange that the books know of."""
        ...

    def limited(self, limit: str) -> None:
        """A request was refused by a limit, named by a word of the code's."""
        ...

    def reloaded(self, *, ok: bool) -> None:
        """The routes file was read again, and runs (or not)."""
        ...


class EventSink(Protocol):
    """Told of what operators may want to hear of at once. Never blocks, never raises."""

    def emit(self, kind: EventKind, **facts: str | int | float | bool | None) -> None:
        """``facts`` go to everybody who may see how the process stands: no credential, no prompt."""
        ...


class EventFeed(EventSink, Protocol):
    """An `EventSink` that can be listened to."""

    def listen(self) -> "EventListener | None":
        """From now on. None: too many listen already. Whoever listens must `close` it."""
        ...


class EventListener(Protocol):
    """One who listens. What is not fetched in time is not kept for ever: then it ends, and ``dropped`` says so."""

    @property
    def dropped(self) -> bool: ...

    async def next(self, within_s: float) -> "bytes | None":
        """The next event as JSON; empty where there was none in time; None: there will be no more."""
        ...

    def close(self) -> None: ...


class EventBus(Protocol):
    """Carries events between processes, none of them surely. Errors: `StoreAway` from `publish`."""

    async def publish(self, event: bytes) -> None: ...

    async def listen(self, told: Callable[[bytes | None], None]) -> None:
        """Call `told` with every event, one's own too, until cancelled. None: some may have been missed."""
        ...


class Exposition(Protocol):
    """What `/metrics` shows."""

    async def page(self, accept: str) -> tuple[str, bytes]:
        """Content type and text, as `Accept` asks for."""
        ...


class Tracer(Protocol):
    """Takes spans that are over. Never blocks, never raises."""

    def begin(self, traceparent: str | None) -> TraceContext:
        """The span of an exchange: in its client's trace, or in one of its own. ``traceparent``: as the client sent it."""
        ...

    def span_id(self) -> int: ...

    def ended(self, tell: Callable[[], Sequence[TraceSpan]]) -> None:
        """``tell`` gives the spans of an exchange; it is called once, later, in another thread."""
        ...


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


@dataclass(frozen=True, slots=True)
class Away:
    """Nobody can say what was spent: whoever was to know it is away, or was not asked in time. An answer, not a failure of a
    store, which is `StoreAway`."""

    detail: str


@dataclass(slots=True, unsafe_hash=True)  # not frozen, as `LedgerRow`
class Reservation:
    """How the books stand after a reservation, in the order of its claims. ``refused``: the first without room."""

    standings: tuple[Standing, ...]
    refused: int | None = None


@dataclass(frozen=True, slots=True)
class Unseeded:
    """Books without a state: not empty ones, but ones to be made from the ledger before anything is reserved in them.

    ``mine``: for this worker to `seed`, within `SEEDING_MS`; the others are being seeded by somebody.
    """

    mine: tuple[Book, ...]
    others: tuple[Book, ...]


SEEDING_MS: Final = 200  # afterwards it is the turn of the next worker that asks; to seed twice does no harm


class BudgetStore(Protocol):
    """The books: see `proxy.core.budget` for what each of these does to one. Every call is atomic over all its books.

    Leases last as long as the store was made for, by its own clock. Errors: `StoreAway`; ValueError for what is no
    money (`proxy.core.budget.money`), which is the caller's defect.
    """

    async def reserve(self, lease: BudgetLease, worker: str) -> Reservation | Unseeded:
        """Hold its amount in every book, or in none. The same exchange again: the amount is changed, not added."""
        ...

    async def renew(self, leases: Sequence[BudgetLease]) -> frozenset[Book]:
        """Keep leases that still run. Returns the books without a state, in which nothing could be kept."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Mapping[Book, Standing]:
        """Book what was used, once however often it is asked. Returns the books' standings; none without a state."""
        ...

    async def seed(self, book: Book, spent: NanoUsd, mark_ms: int) -> Standing:
        """Make the state of a book; one that is there already is left as it is."""
        ...

    async def look(self, books: Sequence[Book]) -> Mapping[Book, Standing]:
        """How books stand; none without a state."""
        ...

    async def audit(self, book: Book, apart_ms: int) -> Audit | None:
        """Begin an audit; None where it is too soon, too much is open, or there is no state."""
        ...

    async def repair(self, book: Book, number: int, missing: NanoUsd, mark_ms: int) -> bool:
        """End an audit; False where it is no longer the latest."""
        ...

    async def alert(self, book: Book, level: AlertLevel, worker: str) -> bool:
        """Whether it is for this worker to tell that a book has come to `level`. One worker, once."""
        ...


class SpendSource(Protocol):
    """The ledger, asked for sums. The ledger is the truth; the books are made from it and repaired from it."""

    async def spent(
        self, subject: PayerId, window: Window, before_ms: int, without: Collection[ExchangeId] = ()
    ) -> "NanoUsd | Away":
        """What the exchanges of `subject` cost that were admitted in `window` and before `before_ms`, but for `without`.

        An exchange belongs to the window in which it was *admitted*: the very moment that was given to `Budgets.reserve`,
        in whole milliseconds, whenever it ended. Asked for all live books every 20 s, so it should not walk a month's rows.
        ``without`` holds at most `AUDIT_EXCEPT_MAX` ids.
        """
        ...


class AlertSink(Protocol):
    """Told of each alert once. Never blocks, never raises."""

    def __call__(self, alert: BudgetAlert, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a cache says of a key. ``generation`` is as of this moment: an answer that is asked for now is put with it."""

    answer: CachedAnswer | None
    generation: Generation


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How full a cache is. ``bytes`` are those that count towards ``bytes_max``, some overhead of the store included."""

    entries: int
    bytes: int
    bytes_max: int


class CacheStore(Protocol):
    """Answers that may be given again, and who fetches one that is missing.

    Generations. An answer is never served after an invalidation that came later than the answer was *asked for*: who asks
    a provider takes the generation of a `get` before, puts the answer with it, and does not put what it asked for without
    one. That holds for all processes at once, from when `invalidate` has returned.

    Errors: `StoreAway` from everything; callers treat it as a miss, and fetch. What cannot be read (corrupt, of another
    version, of another type) is a miss. Bounds: bytes; a store that is full drops the least recently used (memory) or what
    would be gone first (Redis).
    """

    @property
    def where(self) -> str:
        """In a word, for operators: `memory`, `redis`."""
        ...

    async def get(self, cache_key: CacheKey) -> Recalled: ...

    async def put(self, cache_key: CacheKey, answer: CachedAnswer) -> bool:
        """Keep an answer for its `ttl_s`. Whether it was taken: not what is too large, or asked for before what is held.

        What was invalidated meanwhile is not taken either, or is never served.
        """
        ...

    async def invalidate(self, selector: Selector) -> int:
        """Serve nothing any more that the selector selects. How many were dropped for it; fewer if the store went away."""
        ...

    async def stats(self) -> CacheStats: ...

    async def lease(self, cache_key: CacheKey, owner: str, for_s: float) -> bool:
        """Whether this owner is the one who fetches. An owner who has the lease has it for `for_s` from now."""
        ...

    async def release(self, cache_key: CacheKey, owner: str) -> None:
        """Give a lease back, after the `put`; nothing where it is not this owner's any more."""
        ...

    async def wait(self, cache_key: CacheKey, within_s: float) -> CachedAnswer | None:
        """Wait for what somebody else fetches. None: the lease has gone without an answer, or the time has."""
        ...


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A virtual key as a store holds it. ``revision`` grows with every change of any key.

    ``record`` None: it is there, and this version cannot read it.
    """

    id: VirtualKeyId
    revision: int
    record: KeyRecord | None


@dataclass(frozen=True, slots=True)
class KeyCursor:
    """A place in the list of keys, the newest first."""

    created_at: int
    id: str


@dataclass(frozen=True, slots=True)
class KeyPage:
    """``next`` None: nothing comes after it."""

    keys: tuple[KeptKey, ...]
    next: KeyCursor | None


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """Keys that changed, each once, in the order of their last change. ``revision``: the store's latest."""

    revision: int
    keys: tuple[KeptKey, ...]


class KeyStore(Protocol):
    """Virtual keys: records without secrets. A key that was made is never removed, only revoked.

    ``account``: only a key of this account is there for who asks; None: any. Concurrency: any number of tasks and processes;
    changes take effect one after the other, in the order of their revisions. Errors: `StoreAway`, `StoreUnusable`.
    """

    async def open(self) -> None:
        """Connect, and bring the schema up to date. The other methods do so by themselves if it was not done."""
        ...

    async def create(self, record: KeyRecord) -> bool:
        """Keep a new key. False: its id is taken, and nothing was changed."""
        ...

    async def get(self, key_id: str, account: AccountId | None = None) -> KeptKey | None: ...

    async def page(self, limit: int, after: KeyCursor | None = None, account: AccountId | None = None) -> KeyPage:
        """At most `limit` keys, the newest first, behind the cursor."""
        ...

    async def swap(self, record: KeyRecord, expected: int) -> bool:
        """Keep a record instead of the one of revision `expected`. False: the key has changed since, or is not there.

        A change, a revocation, a rotation: what becomes of a record, `proxy.core.key_record` says. Its id, account and
        moment of creation stay what they were.
        """
        ...

    async def changes(self, after_revision: int, limit: int) -> KeyChanges:
        """At most `limit` keys that changed after a revision: misses none, ever. Cheap where there are none."""
        ...

    async def close(self) -> None: ...


class KeyNews(Protocol):
    """Tells other processes that keys have changed, so that they look at once. Whoever misses it looks a little later."""

    async def tell(self) -> None:
        """Raises `StoreAway`."""
        ...

    async def listen(self, told: Callable[[], None]) -> None:
        """Call `told` for every change, soon, until cancelled; also where some may have been missed."""


class LimitStore(Protocol):
    """What subjects have taken of their limits: see `proxy.core.limiting` for what each of these does to one.

    Every call is atomic over all subjects of a lease. Leases last as long as the store was made for, by its own clock.
    Errors: `StoreAway`. Bounds: what takes nothing for a day is forgotten.
    """

    async def take(self, lease: LimitLease) -> Taken:
        """Take from every subject of the lease, or from none."""
        ...

    async def renew(self, leases: Sequence[LimitLease], worker: str) -> int:
        """Keep leases that still run; and how many workers have renewed within a lease's time, this one among them."""
        ...

    async def settle(self, settlements: Sequence[LimitSettlement]) -> None:
        """Give leases back, with what was used beyond or below what was taken; each once, however often it is asked."""
        ...

    async def look(self, claims: Sequence[LimitClaim]) -> Sequence[LimitStanding]:
        """How subjects stand, in their order."""
        ...

    async def reset(self, subject: LimitId) -> bool:
        """Forget all that a subject has taken. Whether there was anything."""
        ...


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One sealed value, see `proxy.core.envelope`. ``version``: the change that wrote it. Units: Unix microseconds."""

    name: str
    version: int
    key_id: str
    sealed: bytes = field(repr=False)
    created_us: int


@dataclass(frozen=True, slots=True)
class SecretsHeld:
    """All that is sealed, by name, as of one moment. ``change`` counts what was changed so far."""

    change: int
    secrets: tuple[SealedSecret, ...]

    def find(self, name: str) -> SealedSecret | None:
        return next((secret for secret in self.secrets if secret.name == name), None)


class SecretStore(Protocol):
    """Sealed values. Opens none, and knows no key.

    Connects, and brings the schema up to date, with the first call. Concurrency: any number of tasks; several processes may
    share one store. Errors: every method raises `StoreAway` and `StoreUnusable`.
    """

    async def change(self) -> int:
        """How often something was changed: cheap, for those who ask again and again."""
        ...

    async def load(self) -> SecretsHeld: ...

    async def put(self, secret: SealedSecret) -> bool:
        """Write a secret in the place of the one of its name. False: somebody was quicker, and nothing was written.

        That is where its version is not the next change: it was sealed for that version, and for no other.
        """
        ...

    async def remove(self, name: str) -> bool:
        """Whether there was one of this name."""
        ...

    async def close(self) -> None: ...
