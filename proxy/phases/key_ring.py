"""The process's own copy of the virtual keys: who holds what is presented, at once and without asking a store.

One task brings the copy up to date: twice a second, at once where another process tells of a change (`KeyNews`), and soon
after a well-formed key was refused, because it may have been made a moment ago. While the store is away the copy is good for
`STALE_S`; afterwards every key is refused, because nobody knows which of them has been revoked since. When the store is back
the copy is made anew: it may have been restored from a backup meanwhile.

States of the copy: *none yet* (no key is known, all are refused with 503), *fresh*, *away* (good until it is stale), *stale*
(as none). The environment's key is in no store, and good in each of them.

A verification costs 5 us (one HMAC, two comparisons; measured on Python 3.11), so nothing is memoised and there is nothing
that could outlive a revocation. What is refused costs the same whether the id is known or not: an unknown one is compared
with the hash of some key, which lies in memory as its own would.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice
from typing import Final

from proxy.core import virtual_key
from proxy.core.failure import Failure, FailureKind
from proxy.core.key_record import ENVIRONMENT, KeyRecord, principal_of
from proxy.core.payer import BudgetTable
from proxy.core.principal import Principal
from proxy.core.virtual_key import Malformed, Peppers, Presented, SecretHash
from proxy.ports import ExchangeLog, KeptKey, KeyNews, KeyStore, StoreAway, StoreUnusable
from proxy.terms import VirtualKeyId

POLL_S: Final = 0.4  # with what a look takes, a change is known everywhere within half a second
APART_S: Final = 0.1  # between two looks, however many wrong keys come
START_S: Final = 2.0  # for the first look; the others go on behind the first requests
ASK_S: Final = 5.0  # for one look; a store that is slower is away
STALE_S: Final = 3600.0
BATCH: Final = 100  # records at once: 5 ms of the interpreter's time
REVOKED_TOLD_S: Final = 7 * 24 * 3600  # for so long the holder of a revoked key is told that it is
KEYS_MAX: Final = 50_000  # that may be made: each takes 1.1 KiB in every process, and 50 us when it is read
DECOYS_MAX: Final = 256  # keys that unknown ids are compared with
OUTDATED_MAX: Final = 1000  # hashes waiting to be made again; the others wait for their next request
AGAIN_S: Final = 5.0


class KeyProblem(Enum):
    """Why a key is refused."""

    MALFORMED = "malformed"
    CHECKSUM = "checksum"
    UNKNOWN = "unknown"  # the id, or the secret: not told apart
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNAVAILABLE = "unavailable"


_TOLD: Final = {
    KeyProblem.MALFORMED: "The API key is not one of this server's. Its keys begin with psk- and have 67 characters.",
    KeyProblem.CHECKSUM: "The API key is mistyped or cut: its checksum is wrong. Copy it again, whole.",
    KeyProblem.UNKNOWN: "The API key is not known here.",
    KeyProblem.REVOKED: "The API key has been revoked. Ask for a new one.",
    KeyProblem.EXPIRED: "The API key has expired. Ask for a new one.",
    KeyProblem.UNAVAILABLE: (
        "Keys cannot be verified now: their store is away, and has been for too long to go on without it."
    ),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody is let in. ``key_id``: of a well-formed key, to count wrong ones by; it may be anybody's invention."""

    problem: KeyProblem
    key_id: VirtualKeyId | None = None

    @property
    def failure(self) -> Failure:
        if self.problem is KeyProblem.UNAVAILABLE:
            return Failure(FailureKind.STORE_UNAVAILABLE, _TOLD[self.problem], retry_after_s=AGAIN_S)
        return Failure(FailureKind.KEY_REFUSED, _TOLD[self.problem])


@dataclass(slots=True)
class _Entry:
    """``old`` is nobody's where the record has none. ``principal``: made when first asked for."""

    revision: int
    record: KeyRecord
    old: SecretHash
    principal: Principal | None = None


@dataclass(frozen=True, slots=True)
class KeyRingState:
    """``age_s`` None: they were never read. ``error``: why they cannot be read now. ``is_good`` False: all are refused."""

    keys: int
    age_s: float | None
    error: str | None
    is_good: bool


@dataclass(slots=True)
class KeyRing:
    """``environment_key``: PENSTOCK_API_KEY. `start` before the first request, `close` after the last."""

    store: KeyStore
    peppers: Peppers
    budgets: BudgetTable
    log: ExchangeLog
    wall: Callable[[], float]
    now: Callable[[], float]
    news: KeyNews | None = None
    environment_key: str | None = field(default=None, repr=False)
    stale_s: float = STALE_S
    _entries: dict[VirtualKeyId, _Entry] = field(default_factory=dict)
    _revision: int = 0
    _seen_at: float | None = None
    _error: str | None = None
    _nobody: SecretHash = field(init=False)
    _nobodys: _Entry = field(init=False)
    _decoys: Sequence[_Entry] = field(init=False)
    _environment: tuple[bytes, Principal] | None = field(init=False, default=None)
    _outdated: dict[VirtualKeyId, SecretHash] = field(default_factory=dict)
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._nobody = self.peppers.nobodys()
        self._nobodys = _Entry(0, KeyRecord(VirtualKeyId(""), self._nobody, "", "", 0, ""), self._nobody)
        self._decoys = (self._nobodys,)
        if self.environment_key is not None:
            self._environment = _digest(self.environment_key), Principal(virtual_key=ENVIRONMENT, passthrough=True)

    # What a request asks.

    def verify(self, presented: str) -> Principal | Refusal:
        """Who holds what is presented, now. Never waits."""
        if self._environment is not None:
            digest, principal = self._environment
            if hmac.compare_digest(_digest(presented), digest):
                return principal
        found = self._found(presented)
        if isinstance(found, Refusal):
            return found
        if found.principal is None:
            found.principal = principal_of(found.record, self.budgets)
        return found.principal

    def record(self, presented: str) -> KeyRecord | Refusal:
        """The record of the virtual key that is presented: for those who give rights. The environment's key has none."""
        found = self._found(presented)
        return found if isinstance(found, Refusal) else found.record

    def _found(self, presented: str) -> _Entry | Refusal:
        parsed = virtual_key.parse(presented)
        if isinstance(parsed, Malformed):
            return Refusal(KeyProblem.MALFORMED if parsed is Malformed.FORM else KeyProblem.CHECKSUM)
        if not self._is_good:
            return Refusal(KeyProblem.UNAVAILABLE, parsed.id)
        decoy = self._decoys[hash(parsed.id) % len(self._decoys)]
        entry = self._entries.get(parsed.id, decoy)
        is_known = entry.record.id == parsed.id
        is_kept, is_old = self.peppers.holds(parsed, entry.record.hash, entry.old)
        if not is_known or not (is_kept or is_old) or parsed.id not in self._entries:
            self._wake.set()  # it may have been made, or given a new secret, a moment ago
            return Refusal(KeyProblem.UNKNOWN, parsed.id)
        return self._judged(entry, parsed, is_kept=is_kept)

    def _judged(self, entry: _Entry, parsed: Presented, *, is_kept: bool) -> _Entry | Refusal:
        """Of a key whose secret is right."""
        record, now = entry.record, self.wall()
        if record.revoked_at is not None:
            return Refusal(KeyProblem.REVOKED, record.id)
        if record.is_over(now):
            return Refusal(KeyProblem.EXPIRED, record.id)
        if not is_kept and (record.old_until is None or now >= record.old_until):
            return Refusal(KeyProblem.REVOKED, record.id)
        if is_kept and record.hash.kid != self.peppers.current.kid and len(self._outdated) < OUTDATED_MAX:
            self._outdated[record.id] = self.peppers.current.hash_of(parsed.id, parsed.secret)
        return entry

    def use(self, budgets: BudgetTable) -> None:
        """The routes file says something else of who pays."""
        self.budgets = budgets
        for entry in self._entries.values():
            entry.principal = None

    @property
    def state(self) -> KeyRingState:
        age_s = None if self._seen_at is None else self.now() - self._seen_at
        return KeyRingState(len(self._entries), age_s, self._error, self._is_good)

    @property
    def _is_good(self) -> bool:
        return self._seen_at is not None and self.now() - self._seen_at <= self.stale_s

    # How the copy is kept.

    async def start(self) -> None:
        """Read the keys once, and go on in the background. Raises `StoreUnusable`; a store that is away is no error."""
        with suppress(TimeoutError, StoreAway):
            async with asyncio.timeout(START_S):
                await self.store.open()
                await self.refresh()
        self._tasks.append(asyncio.create_task(self._keep()))
        if self.news is not None:
            self._tasks.append(asyncio.create_task(self.news.listen(self._wake.set)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.store.close()

    async def changed(self) -> None:
        """After a change that this process made: when it returns, it holds here, and the others are told."""
        await self.refresh()
        if self.news is not None:
            try:
                await self.news.tell()
            except StoreAway as away:
                self.log.event("keys: the others are not told of a change; they look within a second", error=str(away))

    async def refresh(self) -> None:
        """Bring the copy up to date. A store that is away leaves it as it is."""
        async with self._refreshing:
            began = self.now()
            try:
                await self._read()
            except (StoreAway, StoreUnusable, TimeoutError) as away:
                error = str(away) or f"no answer within {ASK_S:.0f} s"
                if self._error is None:
                    self.log.event("keys: their store is away", error=error, stale_after_s=self.stale_s)
                self._error = error
                return
            if self._error is not None:
                self.log.event("keys: their store is back")
            self._seen_at, self._error = began, None

    async def _read(self) -> None:
        """What has changed since; or all of it, put in place when it is whole."""
        anew = self._seen_at is None or self._error is not None
        entries, revision = ({}, 0) if anew else (self._entries, self._revision)
        while True:
            async with asyncio.timeout(ASK_S):
                changes = await self.store.changes(revision, BATCH)
            if changes.revision < revision:  # another state of the store: begin again
                entries, revision = {}, 0
                continue
            for kept in changes.keys:
                self._take(kept, entries)
                revision = kept.revision
            if len(changes.keys) < BATCH:
                break
        if revision != self._revision or anew:
            self._decoys = tuple(islice(entries.values(), DECOYS_MAX)) or (self._nobodys,)
        self._entries, self._revision = entries, max(revision, changes.revision)

    def _take(self, kept: KeptKey, entries: dict[VirtualKeyId, _Entry]) -> None:
        record = kept.record
        if record is None:
            self.log.event("keys: one cannot be read by this version, and is refused", key=kept.id)
        elif not self.peppers.knows(record.hash.kid) and record.revoked_at is None:
            self.log.event(
                "keys: one was made under another pepper, and is refused", key=kept.id, pepper=record.hash.kid
            )
        if record is None or (record.revoked_at is not None and self.wall() - record.revoked_at > REVOKED_TOLD_S):
            entries.pop(kept.id, None)
        else:
            entries[kept.id] = _Entry(kept.revision, record, record.old or self._nobody)

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            self._wake.clear()
            await self.refresh()
            await self._hash_again()
            await asyncio.sleep(APART_S)

    async def _hash_again(self) -> None:
        """Keys that were used, and whose hash is under the pepper before, get one under the pepper that counts."""
        while self._outdated and self._error is None:
            key_id, made = self._outdated.popitem()
            entry = self._entries.get(key_id)
            if entry is None or entry.record.hash.kid == made.kid:
                continue
            try:
                await self.store.swap(replace(entry.record, hash=made), entry.revision)
            except (StoreAway, StoreUnusable):
                return  # the next request of the key finds it outdated again


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
