"""The process's own copy of the keys: who is let in, how soon a change is known, and what holds while the store is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from proxy.core import key_record, virtual_key
from proxy.core.failure import FailureKind
from proxy.core.key_record import ENVIRONMENT, KeyBudgets, KeyRecord
from proxy.core.payer import NO_BUDGETS
from proxy.core.principal import Principal
from proxy.core.virtual_key import Peppers
from proxy.phases import key_ring
from proxy.phases.key_ring import KeyProblem, KeyRing, Refusal
from proxy.ports import KeyChanges, KeyStore, StoreAway, StoreUnusable
from proxy.stores.redis.connection import RedisConnection
from proxy.stores.redis.key_news import RedisKeyNews
from proxy.stores.sqlite.keys import SqliteKeys
from proxy.terms import NanoUsd
from tests.gateway import RecordingLog
from tests.keys import CREATED, OTHER_PEPPER, PEPPER, PEPPERS, new_key
from tests.stopwatch import Stopwatch
from tests.valkey import Valkey

API_KEY = "env-Zq8vT1nB6yKd4wXs9LpRf2JmGc7h"


class Cord:
    """A real store that can be unplugged."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.trouble: Exception | None = None
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def changes(self, after_revision: int, limit: int) -> KeyChanges:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return await self._store.changes(after_revision, limit)


@dataclass
class Stage:
    folder: Path
    wall_s: float = CREATED + 10
    now_s: float = 100.0
    log: RecordingLog = field(default_factory=RecordingLog)
    rings: list[KeyRing] = field(default_factory=list)

    def ring(self, peppers: Peppers = PEPPERS, **more: Any) -> tuple[KeyRing, Cord]:
        """One process's, on the store of all."""
        cord = Cord(SqliteKeys(self.folder / "trust.sqlite3"))
        more = {"wall": lambda: self.wall_s, "now": lambda: self.now_s, **more}
        ring = KeyRing(cord, peppers, NO_BUDGETS, self.log, **more)
        self.rings.append(ring)
        return ring, cord


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    for ring in made.rings:
        await ring.close()


def refused(ring: KeyRing, presented: str) -> KeyProblem:
    found = ring.verify(presented)
    assert isinstance(found, Refusal)
    return found.problem


async def change(ring: KeyRing, change: Callable[[KeyRecord], KeyRecord], record: KeyRecord) -> None:
    kept = await ring.store.get(record.id)
    assert kept is not None
    assert kept.record is not None
    assert await ring.store.swap(change(kept.record), kept.revision)
    await ring.changed()


async def within(seconds: float, is_so: Callable[[], bool]) -> float:
    watch = Stopwatch.patient()
    while not is_so():
        assert not watch.is_over(seconds)
        await asyncio.sleep(0.005)
    return watch.passed_s


async def test_a_key_that_is_there_lets_in(stage: Stage) -> None:
    ring, _ = stage.ring()
    made, record = new_key(routes=("voice",))
    await ring.store.create(record)
    await ring.start()
    assert ring.verify(made.text) == Principal(virtual_key=made.id, routes=("voice",))
    assert ring.verify(made.text) is ring.verify(made.text), "made once"
    assert ring.record(made.text) == record
    assert (ring.state.keys, ring.state.error, ring.state.age_s) == (1, None, 0.0)


async def test_s07_what_is_no_key_is_told_apart_without_the_store(stage: Stage) -> None:
    ring, cord = stage.ring()
    made, _ = new_key()
    assert refused(ring, "sk-something") is KeyProblem.MALFORMED
    assert refused(ring, "") is KeyProblem.MALFORMED
    assert refused(ring, "psk-\ud800") is KeyProblem.MALFORMED
    assert refused(ring, made.text[:-1] + ("0" if made.text[-1] != "0" else "1")) is KeyProblem.CHECKSUM
    assert cord.looks == 0
    assert not (stage.folder / "trust.sqlite3").exists()


async def test_s06_an_unknown_id_and_a_wrong_secret_are_told_alike(stage: Stage) -> None:
    ring, _ = stage.ring()
    made, record = new_key()
    await ring.store.create(record)
    await ring.start()
    wrong, unknown = virtual_key.make(made.id), virtual_key.make()
    told = [ring.verify(text) for text in (wrong.text, unknown.text)]
    assert told == [Refusal(KeyProblem.UNKNOWN, made.id), Refusal(KeyProblem.UNKNOWN, unknown.id)]
    failures = {one.failure for one in told if isinstance(one, Refusal)}
    assert len(failures) == 1
    (failure,) = failures
    assert (failure.kind, failure.status) == (FailureKind.KEY_REFUSED, 401)
    assert made.secret not in repr(told)


async def test_expiry_is_looked_at_each_time(stage: Stage) -> None:
    ring, _ = stage.ring()
    made, record = new_key(expires_at=CREATED + 20)
    await ring.store.create(record)
    await ring.start()
    stage.wall_s = CREATED + 19.9
    assert isinstance(ring.verify(made.text), Principal)
    stage.wall_s = CREATED + 20
    assert refused(ring, made.text) is KeyProblem.EXPIRED
    assert refused(ring, virtual_key.make(made.id).text) is KeyProblem.UNKNOWN, "told to its holder alone"


async def test_s09_a_revocation_reaches_another_process_within_a_second(stage: Stage) -> None:
    here, _ = stage.ring(now=time.monotonic)
    there, _ = stage.ring(now=time.monotonic)
    made, record = new_key()
    await here.store.create(record)
    await here.start()
    await there.start()
    assert isinstance(there.verify(made.text), Principal)
    await change(here, lambda one: key_record.revoked(one, CREATED + 5), record)
    assert refused(here, made.text) is KeyProblem.REVOKED, "at once where it was done"
    await within(1.0, lambda: not isinstance(there.verify(made.text), Principal))
    assert refused(there, made.text) is KeyProblem.REVOKED


async def test_s09_with_redis_a_change_is_known_at_once(
    stage: Stage, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "POLL_S", 30.0)
    connections = [RedisConnection(valkey.url) for _ in range(2)]
    here, there = (stage.ring(news=RedisKeyNews(one), now=time.monotonic)[0] for one in connections)
    made, record = new_key()
    await here.store.create(record)
    await here.start()
    await there.start()
    await asyncio.sleep(3 * key_ring.APART_S)  # what its subscription itself says has been looked after
    await change(here, lambda one: key_record.revoked(one, CREATED + 5), record)
    await within(1.0, lambda: not isinstance(there.verify(made.text), Principal))
    for connection in connections:
        await connection.close()


async def test_s09_without_redis_the_others_still_look(stage: Stage, own_valkey: Valkey) -> None:
    connections = [RedisConnection(own_valkey.url) for _ in range(2)]
    here, there = (stage.ring(news=RedisKeyNews(one), now=time.monotonic)[0] for one in connections)
    made, record = new_key()
    await here.store.create(record)
    await here.start()
    await there.start()
    own_valkey.stop()
    await change(here, lambda one: key_record.revoked(one, CREATED + 5), record)
    assert any("not told" in str(event["message"]) for event in stage.log.events)
    await within(1.0, lambda: not isinstance(there.verify(made.text), Principal))
    for ring in stage.rings:
        await ring.close()
    for connection in connections:
        await connection.close()


async def test_a_key_made_elsewhere_is_known_soon_after_it_was_missed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "POLL_S", 30.0)
    here, _ = stage.ring()
    there, cord = stage.ring()
    await there.start()
    made, record = new_key()
    await here.store.create(record)
    assert refused(there, made.text) is KeyProblem.UNKNOWN
    await within(0.5, lambda: isinstance(there.verify(made.text), Principal))
    assert cord.looks <= 4


async def test_wrong_keys_make_no_storm_of_looks(stage: Stage) -> None:
    ring, cord = stage.ring(now=time.monotonic)
    await ring.start()
    before, began = cord.looks, time.monotonic()
    for _ in range(40):
        for _ in range(50):
            assert refused(ring, virtual_key.make().text) is KeyProblem.UNKNOWN
        await asyncio.sleep(0.005)
    assert cord.looks - before <= (time.monotonic() - began) / key_ring.APART_S + 2
    assert ring.state.keys == 0, "nothing is kept of what is unknown"


async def test_a_rotated_secret_is_good_for_its_grace_and_no_longer(stage: Stage) -> None:
    ring, _ = stage.ring()
    made, record = new_key()
    await ring.store.create(record)
    await ring.start()
    after = virtual_key.make(made.id)
    await change(ring, lambda one: key_record.rotated(one, after, PEPPER, CREATED + 10, 60), record)
    assert isinstance(ring.verify(made.text), Principal)
    assert isinstance(ring.verify(after.text), Principal)
    stage.wall_s = CREATED + 70
    assert refused(ring, made.text) is KeyProblem.REVOKED
    assert isinstance(ring.verify(after.text), Principal)
    last = virtual_key.make(made.id)
    await change(ring, lambda one: key_record.rotated(one, last, PEPPER, CREATED + 70), record)
    assert refused(ring, after.text) is KeyProblem.UNKNOWN
    assert isinstance(ring.verify(last.text), Principal)


# The store is away.


async def test_s10_the_last_copy_is_good_for_an_hour_and_no_longer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "POLL_S", 30.0)
    ring, cord = stage.ring(environment_key=API_KEY)
    made, record = new_key()
    await ring.store.create(record)
    await ring.start()
    cord.trouble = StoreAway("the cord is out")
    await ring.refresh()
    stage.now_s += 3600
    assert isinstance(ring.verify(made.text), Principal)
    assert (ring.state.error, ring.state.age_s) == ("the cord is out", 3600)
    await change_beside(stage, record)
    stage.now_s += 0.1
    told = ring.verify(made.text)
    assert isinstance(told, Refusal)
    assert (told.problem, told.failure.status) == (KeyProblem.UNAVAILABLE, 503)
    assert "store is away" in told.failure.message
    assert isinstance(ring.record(made.text), Refusal)
    assert isinstance(ring.verify(API_KEY), Principal), "the environment's is in no store"
    cord.trouble = None
    await ring.refresh()
    assert refused(ring, made.text) is KeyProblem.REVOKED, "what happened meanwhile is known"
    assert [event["message"] for event in stage.log.events] == [
        "keys: their store is away",
        "keys: their store is back",
    ]


async def change_beside(stage: Stage, record: KeyRecord) -> None:
    """Another process revokes it."""
    other, _ = stage.ring()
    await change(other, lambda one: key_record.revoked(one, CREATED + 5), record)


async def test_a_store_that_is_away_from_the_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "POLL_S", 0.02)
    ring, cord = stage.ring(environment_key=API_KEY)
    made, record = new_key()
    await ring.store.create(record)
    cord.trouble = StoreUnusable("no")
    await ring.start()
    assert refused(ring, made.text) is KeyProblem.UNAVAILABLE
    assert ring.state.age_s is None
    assert isinstance(ring.verify(API_KEY), Principal)
    cord.trouble = None
    await within(2.0, lambda: isinstance(ring.verify(made.text), Principal))


async def test_a_store_that_was_restored_from_a_backup_is_read_anew(stage: Stage) -> None:
    ring, cord = stage.ring()
    made, record = new_key()
    await ring.store.create(record)
    other_made, other = new_key()
    await ring.store.create(other)
    await ring.refresh()
    restored = SqliteKeys(stage.folder / "backup.sqlite3")
    await restored.create(other)
    old, cord._store = cord._store, restored
    await ring.refresh()
    assert refused(ring, made.text) is KeyProblem.UNKNOWN
    assert isinstance(ring.verify(other_made.text), Principal)
    await old.close()


async def test_many_keys_are_read_in_batches(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "BATCH", 3)
    ring, _ = stage.ring()
    keys = [new_key() for _ in range(9)]
    for _, record in keys:
        await ring.store.create(record)
    await ring.refresh()
    assert all(isinstance(ring.verify(made.text), Principal) for made, _ in keys)


# Peppers.


async def test_s05_without_the_pepper_nothing_verifies(stage: Stage) -> None:
    here, _ = stage.ring()
    made, record = new_key()
    await here.store.create(record)
    thief, _ = stage.ring(Peppers(OTHER_PEPPER))
    await thief.refresh()
    assert refused(thief, made.text) is KeyProblem.UNKNOWN
    assert any("another pepper" in str(event["message"]) for event in stage.log.events)


async def test_a_pepper_is_rotated_as_keys_are_used(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "POLL_S", 0.02)
    here, _ = stage.ring()
    (used, record), (unused, other) = new_key(), new_key()
    for one in (record, other):
        await here.store.create(one)
    both, _ = stage.ring(Peppers(OTHER_PEPPER, PEPPER))
    await both.start()
    for _ in range(3):
        assert isinstance(both.verify(used.text), Principal)
    after, _ = stage.ring(Peppers(OTHER_PEPPER))
    async with asyncio.timeout(3):
        while True:
            await after.refresh()
            if isinstance(after.verify(used.text), Principal):
                break
            await asyncio.sleep(0.01)
    assert refused(after, unused.text) is KeyProblem.UNKNOWN
    assert isinstance(both.verify(unused.text), Principal)
    kept = await here.store.get(record.id)
    assert kept is not None
    assert kept.record == replace(record, hash=OTHER_PEPPER.hash_of(used.id, used.secret))


async def test_a_key_that_cannot_be_read_lets_nobody_in(stage: Stage) -> None:
    import sqlite3  # noqa: PLC0415 - beside the store

    ring, _ = stage.ring()
    made, record = new_key()
    await ring.store.create(record)
    await ring.refresh()
    assert isinstance(ring.verify(made.text), Principal)
    with sqlite3.connect(stage.folder / "trust.sqlite3") as beside:
        beside.execute("UPDATE virtual_key SET settings = '{}', revision = 2")
        beside.execute("UPDATE virtual_key_revision SET revision = 2")
    beside.close()
    await ring.refresh()
    assert refused(ring, made.text) is KeyProblem.UNKNOWN


# The environment's key, and the table.


async def test_the_environments_key_need_not_have_our_form(stage: Stage) -> None:
    ring, _ = stage.ring(environment_key=API_KEY)
    assert ring.verify(API_KEY) == Principal(virtual_key=ENVIRONMENT, passthrough=True)
    assert refused(ring, API_KEY + "x") is KeyProblem.MALFORMED
    found = ring.record(API_KEY)
    assert isinstance(found, Refusal), "it gives no rights"
    assert API_KEY not in repr(ring)
    ours = virtual_key.make().text
    assert isinstance(stage.ring(environment_key=ours)[0].verify(ours), Principal)


async def test_another_table_makes_other_principals(stage: Stage) -> None:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - here alone

    from proxy.core.budget import PROXY  # noqa: PLC0415
    from proxy.core.payer import BudgetTable, Payer  # noqa: PLC0415

    ring, _ = stage.ring()
    made, record = new_key(budgets=KeyBudgets(daily_nanousd=NanoUsd(5)))
    await ring.store.create(record)
    await ring.refresh()
    before = ring.verify(made.text)
    ring.use(BudgetTable((Payer(PROXY, (), ZoneInfo("Asia/Tokyo")),)))
    after = ring.verify(made.text)
    assert isinstance(before, Principal)
    assert isinstance(after, Principal)
    assert [payer.zone.key for payer in (*before.payers, *after.payers)] == ["UTC", "Asia/Tokyo"]


async def test_revoked_keys_of_long_ago_take_no_room(stage: Stage) -> None:
    ring, _ = stage.ring()
    made, record = new_key()
    await ring.store.create(key_record.revoked(record, CREATED))
    await ring.refresh()
    assert refused(ring, made.text) is KeyProblem.REVOKED
    stage.wall_s = CREATED + key_ring.REVOKED_TOLD_S + 1
    later, _ = stage.ring()
    await later.refresh()
    assert later.state.keys == 0
    assert refused(later, made.text) is KeyProblem.UNKNOWN
