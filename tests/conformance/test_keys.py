"""One suite for every implementation of the port `KeyStore`: a new store is one line in `STORES`."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.core import key_record, virtual_key
from proxy.core.key_record import CacheScope, KeyBudgets, KeyRecord
from proxy.core.limits import Limits
from proxy.core.virtual_key import Peppers, Presented
from proxy.ports import KeptKey, KeyCursor, KeyStore, StoreAway, StoreUnusable
from proxy.stores.migrations import Migration
from proxy.stores.postgres import keys as postgres_keys
from proxy.stores.postgres.keys import PostgresKeys
from proxy.stores.sqlite import keys as sqlite_keys
from proxy.stores.sqlite.keys import SqliteKeys
from proxy.terms import AccountId, NanoUsd, Role
from tests.keys import CREATED, OTHER_PEPPER, PEPPER, new_key
from tests.postgres import Postgres

Open = Callable[..., KeyStore]  # each call opens the same store anew, as another process would
Dump = Callable[[], Any]
STORES = ("sqlite", "postgres")
ACME, BETA = AccountId("acme"), AccountId("beta")


class Place:
    """One store, opened as often as one likes."""

    def __init__(self, kind: str, where: str) -> None:
        self.kind, self.where = kind, where
        self.opened: list[KeyStore] = []

    def open(self, **options: Any) -> KeyStore:
        made: KeyStore
        made = (
            PostgresKeys(self.where, **options) if self.kind == "postgres" else SqliteKeys(Path(self.where), **options)
        )
        self.opened.append(made)
        return made

    async def dump(self) -> bytes:
        """All that is kept, as a backup has it."""
        if self.kind == "sqlite":
            folder = Path(self.where).parent
            return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
        connection = await asyncpg.connect(self.where)
        try:
            tables = await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
            )
            rows = [await connection.fetch(f"SELECT t::TEXT FROM {table[0]} AS t") for table in tables]  # noqa: S608
        finally:
            await connection.close()
        return "\n".join(row[0] for table in rows for row in table).encode()


@pytest.fixture(params=STORES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    where = str(tmp_path / "data" / "trust.sqlite3")
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        where = await server.new_database()
    made = Place(request.param, where)
    yield made
    for store in made.opened:
        await store.close()


@pytest.fixture
async def store(place: Place) -> KeyStore:
    return place.open()


async def kept(store: KeyStore, record: KeyRecord) -> KeptKey:
    found = await store.get(record.id)
    assert found is not None
    return found


async def test_a_key_is_read_as_it_was_created(place: Place, store: KeyStore) -> None:
    _, bare = new_key()
    _, full = new_key(
        account=ACME,
        role=Role.ADMIN,
        routes=("voice", "é*"),
        limits=Limits(1.5, 3, 1000, 2),
        budgets=KeyBudgets(NanoUsd(5), NanoUsd(6), 0.5, "Europe/Paris", True),
        expires_at=CREATED + 9,
        tags=(("team", "søk"),),
        cache=CacheScope.KEY,
        name="a name: 'quoted', \"so\" \\ --;",
        revoked_at=CREATED + 1,
    )
    rotated = key_record.rotated(full, virtual_key.make(), OTHER_PEPPER, CREATED, 60)
    for record in (bare, rotated):
        assert await store.create(record)
        assert (await kept(place.open(), record)).record == record
    assert await store.get("nobody") is None
    assert await store.get("' OR '1'='1") is None
    assert await store.get("\0\ud800") is None


async def test_an_id_is_taken_once(store: KeyStore) -> None:
    _, record = new_key()
    assert await store.create(record)
    before = await store.changes(0, 10)
    assert not await store.create(replace(record, name="another"))
    assert await store.changes(0, 10) == before
    assert (await kept(store, record)).record == record


async def test_a_change_is_kept_where_nothing_else_came_between(store: KeyStore) -> None:
    _, record = new_key()
    await store.create(record)
    first = await kept(store, record)
    renamed = replace(record, name="renamed")
    assert await store.swap(renamed, first.revision)
    second = await kept(store, record)
    assert (second.record, second.revision > first.revision) == (renamed, True)
    assert not await store.swap(key_record.revoked(record, CREATED), first.revision), "it has changed since"
    assert await kept(store, record) == second
    assert await store.swap(key_record.revoked(renamed, CREATED), second.revision)
    _, other = new_key()
    assert not await store.swap(other, second.revision), "it is not there"
    assert await store.get(other.id) is None


@pytest.mark.parametrize("field", [{"account": BETA}, {"created_at": 5}])
async def test_what_a_key_was_made_with_stays(store: KeyStore, field: dict[str, Any]) -> None:
    _, record = new_key(account=ACME)
    await store.create(record)
    first = await kept(store, record)
    assert not await store.swap(replace(record, **field), first.revision)
    assert await kept(store, record) == first


async def test_of_many_changes_at_once_one_counts(place: Place, store: KeyStore) -> None:
    _, record = new_key()
    await store.create(record)
    revision = (await kept(store, record)).revision
    stores = [store, place.open(), place.open()]
    changes = [replace(record, name=f"by {number}") for number in range(12)]
    done = await asyncio.gather(*(stores[at % 3].swap(one, revision) for at, one in enumerate(changes)))
    assert sum(done) == 1
    assert (await kept(store, record)).record == changes[done.index(True)]


async def test_s09_changes_are_told_each_once_in_their_order(store: KeyStore) -> None:
    assert (await store.changes(0, 10)).keys == ()
    made = [new_key()[1] for _ in range(5)]
    for record in made:
        await store.create(record)
    first = await store.changes(0, 10)
    assert [one.record for one in first.keys] == made
    assert first.revision == first.keys[-1].revision
    assert await store.changes(first.revision, 10) == replace(first, keys=())
    gone = key_record.revoked(made[1], CREATED)
    await store.swap(gone, first.keys[1].revision)
    second = await store.changes(first.revision, 10)
    assert [one.record for one in second.keys] == [gone]
    walked: list[KeptKey] = []
    after = 0
    while page := (await store.changes(after, 2)).keys:
        walked += page
        after = page[-1].revision
    assert [one.id for one in walked] == [made[at].id for at in (0, 2, 3, 4, 1)]


async def test_s09_a_reader_misses_no_change_of_many_writers(place: Place, store: KeyStore) -> None:
    await store.open()
    writers = [place.open(), place.open(), place.open()]
    made = [new_key()[1] for _ in range(60)]
    writing = [asyncio.create_task(writers[at % 3].create(one)) for at, one in enumerate(made)]
    seen, after = set[str](), 0
    async with asyncio.timeout(20):
        while len(seen) < len(made):
            changes = await store.changes(after, 7)
            seen |= {one.id for one in changes.keys}
            after = max([after, *(one.revision for one in changes.keys)])
    assert all(await asyncio.gather(*writing))
    assert seen == {one.id for one in made}
    assert (await store.changes(after, 7)).keys == ()


async def test_pages_hold_every_key_once_the_newest_first(store: KeyStore) -> None:
    rng = random.Random(5)
    made = [new_key(created_at=CREATED + rng.randrange(4), account=rng.choice([ACME, BETA]))[1] for _ in range(23)]
    for record in made:
        await store.create(record)
    for account in (None, ACME, BETA):
        found: list[KeyRecord | None] = []
        after: KeyCursor | None = None
        while True:
            page = await store.page(5, after, account)
            found += [one.record for one in page.keys]
            after = page.next
            if after is None:
                break
            assert len(page.keys) == 5
        expected = [one for one in made if account in (None, one.account)]
        assert found == sorted(expected, key=lambda one: (one.created_at, one.id), reverse=True)
    assert (await store.page(5, KeyCursor(0, ""))).keys == ()


async def test_s13_a_key_is_nowhere_for_another_account(store: KeyStore) -> None:
    _, record = new_key(account=ACME)
    await store.create(record)
    assert await store.get(record.id, ACME) is not None
    assert await store.get(record.id, BETA) is None
    assert (await store.page(10, None, BETA)).keys == ()
    assert await store.get(record.id, AccountId("' OR ''='")) is None


async def test_s05_a_dump_holds_no_key_and_no_secret(place: Place, store: KeyStore) -> None:
    """And with it alone, without the pepper, nothing verifies."""
    made, record = new_key(name="in the dump")
    await store.create(record)
    after = virtual_key.make(made.id)
    await store.swap(key_record.rotated(record, after, PEPPER, CREATED, 60), (await kept(store, record)).revision)
    dump = await place.dump()
    assert b"in the dump" in dump, "it is one"
    assert made.id.encode() in dump
    for one in (made, after):
        for at in range(len(one.secret) - 8):
            assert one.secret[at : at + 8].encode() not in dump
        assert one.text.encode() not in dump
    assert PEPPER.value not in dump
    restored = (await kept(place.open(), record)).record
    assert restored is not None
    assert restored.old is not None
    for one, right in ((made, (False, True)), (after, (True, False))):
        shown = Presented(one.id, one.secret)
        assert Peppers(PEPPER).holds(shown, restored.hash, restored.old) == right
        assert Peppers(OTHER_PEPPER).holds(shown, restored.hash, restored.old) == (False, False)


async def test_a_row_that_cannot_be_read_is_there_and_no_record(place: Place, store: KeyStore) -> None:
    _, record = new_key()
    await store.create(record)
    if place.kind == "postgres":
        connection = await asyncpg.connect(place.where)
        await connection.execute("UPDATE penstock_virtual_key SET settings = $1", '{"version": 9}')
        await connection.close()
    else:
        import sqlite3  # noqa: PLC0415 - beside the store

        with sqlite3.connect(place.where) as beside:
            beside.execute("UPDATE virtual_key SET settings = ?", ('{"version": 9}',))
        beside.close()
    assert (await kept(store, record)).record is None
    assert [one.record for one in (await store.changes(0, 5)).keys] == [None]
    assert [one.record for one in (await store.page(5)).keys] == [None]


async def test_a_store_of_a_newer_version_is_refused(place: Place) -> None:
    module = postgres_keys if place.kind == "postgres" else sqlite_keys
    newer = (*module.MIGRATIONS, Migration(2, "0002_more", "CREATE TABLE more (x INTEGER);"))
    await place.open(migrations=newer).open()
    with pytest.raises(StoreUnusable, match="a newer Penstock"):
        await place.open().open()


async def test_many_open_a_new_store_at_once(place: Place) -> None:
    await asyncio.gather(*(place.open().open() for _ in range(6)))
    assert (await place.open().changes(0, 5)).revision == 0


async def test_a_store_that_is_not_there_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store in (SqliteKeys(tmp_path / "file" / "trust.sqlite3"), PostgresKeys(f"postgresql://x@/x?host={tmp_path}")):
        for asked in (store.open(), store.get("x"), store.page(1), store.changes(0, 1), store.create(new_key()[1])):
            with pytest.raises(StoreAway):
                await asked
        await store.close()
