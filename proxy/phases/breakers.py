"""The breakers of one process: it decides from its own copy, at once, and shares what it decided.

`admit` and `report` touch nothing but a dict; of a healthy subject there is not even an entry. What others must know is
marked, and one task sends it: compare and set, and where somebody was quicker, `join` of both and once more. Marks are per
subject, so that what changes often is sent as it is last. What others decide comes by the store's channel; a slow poll, and
one after every gap in the channel, makes good what was lost. Where the store is away each process is alone with its copy;
when the store is back, empty or not, the next poll joins what it holds and what we hold.

Only a probe asks the store before it goes: for the one lease. Where the store cannot be asked, one probe a process is let
through. A lease is given back after what its exchange found out has been sent, so that who takes it next knows of it.

Bounds: `SUBJECTS_MAX` records, since clients can choose names; dropped first is what is closed. Held by
`tests/phases/test_breakers.py`, on both stores.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.core import breaker
from proxy.core.breaker import Admission, Cause, Event, Policy, Record, Rejection, State, Subject
from proxy.core.event import EventKind
from proxy.ports import NOTHING_STORED, BreakerStore, Change, EventSink, ExchangeLog, Lease, StoreAway, Stored

SUBJECTS_MAX: Final = 2048
DROPPED: Final = SUBJECTS_MAX // 8  # at once, so that a flood of new names is not sorted for each
LEASE_ASKED_S: Final = 0.02  # PRODUCT: the deadline of a store call
LEASE_TURNS: Final = 4  # in which it is waited for: a busy loop's own pause, however long, is one of them
OTHERS_PROBE_S: Final = (
    0.25  # so long it is believed that somebody else's probe is under way, before the store is asked again
)
POLL_S: Final = 5.0
RETRY_S: Final = 1.0
CLOSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class View:
    """One subject as operators see it. Units: Unix seconds. ``since`` None: always; ``until`` None: no time is known."""

    subject: Subject
    state: State
    since: float | None
    until: float | None
    failures: int
    cause: Cause
    last_error: str


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease, of this process or (``owner`` empty) somebody else's."""

    owner: str
    until: float


class Breakers:
    """Concurrency: one event loop. Times are Unix seconds, passed in, or ``wall``'s where the store is concerned."""

    def __init__(
        self,
        store: BreakerStore,
        log: ExchangeLog,
        wall: Callable[[], float],
        policy: Policy | None = None,
        *,
        events: EventSink | None = None,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self.policy = policy or Policy()  # a reload may set another
        self._store = store
        self._log = log
        self._events = events
        self._wall = wall
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._records: dict[Subject, Record] = {}
        self._known: dict[Subject, Stored] = {}  # what the store was last known to hold
        self._unsent: dict[Subject, None] = {}
        self._leases: dict[Subject, _Held] = {}
        self._let_go: dict[tuple[Subject, str], None] = {}  # leases to give back
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        self._wake = asyncio.Event()
        self._stale = asyncio.Event()  # the store must be read
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: set[asyncio.Task[Lease | None]] = set()

    async def start(self) -> None:
        """Begin to share. What the store holds is known when this returns, if it answers."""
        try:
            await self._read()
        except StoreAway:
            self._stale.set()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._share()),
            loop.create_task(self._keep_up()),
            loop.create_task(self._store.listen(self._heard)),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """End, and give back what is held."""
        for task in (*self._tasks, *self._asking):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._asking, return_exceptions=True)
        for subject, lease in tuple(self._leases.items()):
            if lease.owner:
                self._give_back(subject, lease.owner)
        with contextlib.suppress(StoreAway, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._send()

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("breakers", error)

    # What the phases ask.

    @property
    def quiet(self) -> bool:
        """Whether nothing is known of any subject, so that all may be asked."""
        return not self._records

    def admit(self, subject: Subject, now: float) -> Admission | Rejection:
        """Whether an exchange may be sent. An admission that is a probe goes only with what `lease` makes of it."""
        record = self._records.get(subject)
        if record is None:
            return breaker.PASS
        decision = breaker.admit(record, self.policy, now)
        if isinstance(decision, Admission) and decision.probe:
            held = self._leases.get(subject)
            if held is not None and held.until > now:
                return _being_probed(record, held, now)
        return decision

    async def lease(self, subject: Subject, now: float) -> Admission | Rejection:
        """Get the lease for a probe: the admission to go with, or why not.

        Whoever goes must report, once, whatever becomes of the exchange: Event.IGNORED where it was not sent at all.
        Takes at most `LEASE_ASKED_S`, and what this loop is busy with other work. Cancelling it leaves no lease behind.
        """
        decision = self.admit(subject, now)
        if isinstance(decision, Rejection) or not decision.probe:
            return decision
        owner = f"{self._name}-{next(self._numbers)}"
        ours_ends = any(let_go == subject for let_go, _ in self._let_go)
        self._leases[subject] = _Held(owner, now + self.policy.lease_s)
        asking = asyncio.get_running_loop().create_task(self._ask(subject, owner))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        try:
            for _ in range(LEASE_TURNS):
                done, _ = await asyncio.wait({asking}, timeout=LEASE_ASKED_S / LEASE_TURNS)
                if done:
                    break
        except asyncio.CancelledError:
            # Not before it has been answered, or the answer would come to a lease that nobody gives back.
            asking.add_done_callback(lambda _: self._give_back(subject, owner))
            raise
        answer = asking.result() if asking.done() and not asking.cancelled() else None
        if answer is not None:  # else the store is away, and the lease is this process's own
            if answer.stored.version:
                self._learn(subject, answer.stored)
            if answer.wait_s > 0:
                # Our own last one, which the store will hear of at any moment, is nobody's probe.
                believed_s = LEASE_ASKED_S if ours_ends else OTHERS_PROBE_S
                self._leases[subject] = _Held("", now + min(answer.wait_s, believed_s))
                return self.admit(subject, now)
        return self._with_lease(subject, owner, now)

    def report(
        self,
        subject: Subject,
        admission: Admission,
        event: Event,
        now: float,
        *,
        hint_s: float | None = None,
        error: str = "",
    ) -> None:
        """Tell how an admitted exchange ended. ``hint_s``: the provider's Retry-After; ``error``: the failure's kind."""
        record = self._records.get(subject)
        if record is None and event not in (Event.SUCCESS, Event.IGNORED):
            record = breaker.UNKNOWN
        if record is not None:
            after = breaker.step(record, admission, event, self.policy, now, hint_s=hint_s, error=error)
            if after is not record:
                self._changed(subject, record, after, now)
        if admission.owner:
            self._give_back(subject, admission.owner)

    # What operators ask.

    def snapshot(self, now: float) -> list[View]:
        """Every subject of which something is known, by name."""
        return [
            self._view(subject, record, now)
            for subject, record in sorted(self._records.items())
            if not breaker.is_idle(record, now)
        ]

    def view(self, subject: Subject, now: float) -> View:
        return self._view(subject, self._records.get(subject, breaker.UNKNOWN), now)

    def reset(self, subject: Subject | None, now: float) -> list[Subject]:
        """Close one subject, or all that are known, here and everywhere. Those that were known."""
        found = list(self._records) if subject is None else [subject] if subject in self._records else []
        for each in found:
            record = self._records[each]
            self._changed(each, record, breaker.reset(record, now), now)
        return found

    # What is known.

    def _changed(self, subject: Subject, before: Record, after: Record, now: float) -> None:
        """This process has found something out."""
        if breaker.is_idle(after, now):
            self._forget(subject)
        else:
            self._put(subject, after)
        if breaker.tells(before, after):
            self._mark(subject)
            if before.generation != after.generation:
                self._tell(subject, after, now)

    def _tell(self, subject: Subject, after: Record, now: float) -> None:
        state = breaker.state(after, self.policy, now).value
        cause, seconds = after.cause.value, round(max(after.open_until - now, 0.0), 1)
        error = after.last_error
        self._log.event(
            f"breaker {state}", subject=subject, cause=cause, failures=after.failures, error=error, seconds=seconds
        )
        if self._events is not None:
            self._events.emit(
                EventKind.BREAKER, state=state, subject=subject, cause=cause, error=error, seconds=seconds
            )

    def _learn(self, subject: Subject, stored: Stored) -> None:
        """Somebody else has found something out, or it is our own that comes back."""
        if self._known.get(subject) == stored:
            return
        theirs = breaker.from_bytes(stored.data)
        mine = self._records.get(subject)
        if mine is None:
            full = len(self._records) >= SUBJECTS_MAX and (theirs is None or not theirs.open_until)
            if theirs is not None and not full and breaker.forgotten_at(theirs) > self._wall():
                self._put(subject, theirs)
                self._known[subject] = stored
            return
        self._known[subject] = stored
        if theirs is None:
            self._mark(subject)
            return
        joined = breaker.join(mine, theirs)
        if joined is not mine:
            self._put(subject, joined)
        if breaker.tells(theirs, joined):
            self._mark(subject)

    def _put(self, subject: Subject, record: Record) -> None:
        if subject not in self._records and len(self._records) >= SUBJECTS_MAX:
            self._make_room()
        self._records[subject] = record

    def _make_room(self) -> None:
        """Dropped first: what is closed, then names that providers do not know, then the rest; of equals the oldest."""

        def worth(subject: Subject) -> tuple[int, float]:
            record = self._records[subject]
            rank = 0 if not record.open_until else 1 if record.cause is Cause.QUARANTINE else 2
            return rank, max(record.since, record.cooling_until)

        for subject in sorted(self._records, key=worth)[:DROPPED]:
            self._forget(subject)

    def _forget(self, subject: Subject) -> None:
        self._records.pop(subject, None)
        self._known.pop(subject, None)
        self._unsent.pop(subject, None)

    def _sweep(self, now: float) -> None:
        for subject, record in tuple(self._records.items()):
            shared = record.generation > 0 or record.cooling_until > 0
            if breaker.is_idle(record, now) or (shared and breaker.forgotten_at(record) <= now):
                self._forget(subject)
        self._leases = {subject: held for subject, held in self._leases.items() if held.until > now}

    def _view(self, subject: Subject, record: Record, now: float) -> View:
        decision = breaker.admit(record, self.policy, now)
        if isinstance(decision, Rejection):
            state, since, until, cause = State.OPEN, record.since, decision.until, decision.cause
        else:
            state = State.HALF_OPEN if decision.probe else State.CLOSED
            since, until, cause = record.open_until or record.since, None, record.cause
        return View(subject, state, since or None, until, record.failures, cause, record.last_error)

    # Leases.

    async def _ask(self, subject: Subject, owner: str) -> Lease | None:
        try:
            return await self._store.lease(subject, owner, self.policy.lease_s)
        except StoreAway:
            return None

    def _with_lease(self, subject: Subject, owner: str, now: float) -> Admission | Rejection:
        """Decide again: the store may have told of something new together with the lease."""
        record = self._records.get(subject, breaker.UNKNOWN)
        decision = breaker.admit(record, self.policy, now)
        if isinstance(decision, Admission) and decision.probe:
            return Admission(decision.generation, probe=True, owner=owner)
        self._give_back(subject, owner)
        return decision

    def _give_back(self, subject: Subject, owner: str) -> None:
        held = self._leases.get(subject)
        if held is not None and held.owner == owner:
            del self._leases[subject]
            self._let_go[subject, owner] = None
            if len(self._let_go) > SUBJECTS_MAX:
                del self._let_go[next(iter(self._let_go))]  # it ends by itself
            self._wake.set()

    # Sharing.

    def _mark(self, subject: Subject) -> None:
        self._unsent[subject] = None
        self._wake.set()

    async def _share(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._send()
            except StoreAway:
                await asyncio.sleep(self._retry_s)
                self._wake.set()

    async def _send(self) -> None:
        """Send what is marked, then give leases back. Raises `StoreAway`; what has not been sent stays marked."""
        while self._unsent or self._let_go:
            if self._unsent:
                await self._swap(next(iter(self._unsent)))
            else:
                subject, owner = next(iter(self._let_go))
                await self._store.unlease(subject, owner)
                self._let_go.pop((subject, owner), None)  # or it was one too many meanwhile

    async def _swap(self, subject: Subject) -> None:
        del self._unsent[subject]  # marked again by what changes while this is under way
        record = self._records.get(subject)
        if record is None:
            return
        known = self._known.get(subject, NOTHING_STORED)
        data = breaker.to_bytes(record)
        keep_s = breaker.forgotten_at(record) - self._wall()
        if keep_s <= 0:
            return
        try:
            found = await self._store.swap(subject, known.version, data, keep_s)
        except BaseException:
            self._mark(subject)
            raise
        if found is None:
            if subject in self._records:
                self._known[subject] = Stored(known.version + 1, data)
        elif found.version:
            self._learn(subject, found)
        else:
            self._known.pop(subject, None)
            self._mark(subject)

    def _heard(self, change: Change | None) -> None:
        if change is None:
            self._stale.set()
        else:
            self._learn(change.subject, change.stored)

    async def _keep_up(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):  # wait_for swallows a cancellation in Python 3.11
                    await self._stale.wait()
            try:
                await self._read()
            except StoreAway:
                self._stale.set()
                await asyncio.sleep(self._retry_s)

    async def _read(self) -> None:
        """Join all that the store holds and all that is known here. Raises `StoreAway`."""
        self._stale.clear()
        held = await self._store.load()
        self._sweep(self._wall())
        for subject, stored in held.items():
            self._learn(subject, stored)
        for subject, record in self._records.items():
            if subject not in held and breaker.tells(breaker.UNKNOWN, record):
                self._known.pop(subject, None)
                self._mark(subject)


def _being_probed(record: Record, held: _Held, now: float) -> Rejection:
    """Somebody finds it out just now; when, nobody knows, but not later than the lease ends."""
    return Rejection(min(held.until, now + OTHERS_PROBE_S), record.cause, record.last_error)
