"""One suite for every implementation of the port `AuditLog`: a new store is one line in `STORES`."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.core.audit import Act, AuditFilter, Noted, act, anchor
from proxy.ports import AuditLog, StoreAway, StoreUnusable
from proxy.server.audit import verified
from proxy.server.databases import TRUST_FILE
from proxy.stores.migrations import Migration
from proxy.stores.postgres.audit import PostgresAudit
from proxy.stores.postgres.ledger import PostgresLedger
from proxy.stores.sqlite.audit import SqliteAudit
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import AccountId
from tests.audit import MemoryAudit
from tests.postgres import Postgres
from tests.rows import row

Open = Callable[..., AuditLog]  # each call opens the same store anew, as another process would
STORES = ("memory", "sqlite", "postgres")
KEPT = ("sqlite", "postgres")
NOON_US = 1_728_043_200_000_000


class Store:
    """One store, and what somebody may do to it who goes round the port."""

    def __init__(self, kind: str, path: Path, url: str) -> None:
        self.kind, self.path, self.url = kind, path, url
        self.opened: list[AuditLog] = []
        self._memory = MemoryAudit()

    def __call__(self, **options: Any) -> AuditLog:
        log: AuditLog = self._memory
        if self.kind == "sqlite":
            log = SqliteAudit(self.path, **options)
        elif self.kind == "postgres":
            log = PostgresAudit(self.url, **options)
        self.opened.append(log)
        return log

    async def run(self, statement: str, *, guarded: bool = True) -> None:
        """``guarded`` False: as the owner of the store, who switches the triggers off."""
        if self.kind == "sqlite":
            connection = sqlite3.connect(self.path, isolation_level=None)
            try:
                if not guarded:
                    for (name,) in connection.execute(
                        "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
                    ).fetchall():
                        connection.execute(f"DROP TRIGGER {name}")
                connection.execute(statement)
            finally:
                connection.close()
            return
        client = await asyncpg.connect(self.url)
        try:
            if not guarded:
                await client.execute("SET session_replication_role = replica")
            await client.execute(statement.replace("audit", "penstock_audit"))
        finally:
            await client.close()


async def _store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    url = ""
    if kind == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.new_database()
    store = Store(kind, tmp_path / "data" / TRUST_FILE, url)
    yield store
    for log in store.opened:
        await log.close()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async for one in _store(request.param, request, tmp_path):
        yield one


@pytest.fixture(params=KEPT)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async for one in _store(request.param, request, tmp_path):
        yield one


def done(number: int, **more: Any) -> Act:
    made: dict[str, Any] = {"subject": f"thing-{number}", "peer": "127.0.0.1", "request_id": f"req_{number}", **more}
    return act(NOON_US + number, made.pop("actor", "admin key"), made.pop("act", "POST /x"), "done", **made)


async def filled(log: AuditLog, count: int) -> None:
    for number in range(1, count + 1):
        await log.append(done(number))


async def test_s68_entries_are_numbered_chained_and_read_as_written(store: Store) -> None:
    log = store()
    await log.open()
    head = await log.head()
    assert (head.number, head.hash) == (0, anchor(head.installation))
    first = await log.append(done(1, changes={"a": "\u00e9\u4e2d", "b": [1, None]}, account=AccountId("acme"), begun=7))
    second = await log.append(act(NOON_US, "penstock", "started", "noted"))
    assert (first.number, first.previous) == (1, head.hash)
    assert (second.number, second.previous) == (2, first.hash)
    assert await log.read(0, 10) == (first, second)
    assert await log.read(1, 10) == (second,)
    assert await log.read(0, 1) == (first,)
    again = store()
    assert await again.head() == (head.installation, 2, second.hash)
    assert await again.read(0, 10) == (first, second)
    assert (await verified(again)) == (await again.head(), ())


async def test_two_installations_differ(kept: Store, tmp_path: Path) -> None:
    other = SqliteAudit(tmp_path / "other" / TRUST_FILE)
    assert (await kept().head()).installation != (await other.head()).installation
    await other.close()


async def test_pages_are_newest_first_and_filtered(store: Store) -> None:
    log = store()
    for number in range(1, 11):
        actor = "admin key" if number % 2 else "key:vk_1"
        await log.append(
            done(number, actor=actor, act=f"POST /{number % 3}", account=AccountId("acme" if number > 5 else "bravo"))
        )
    page = await log.page(AuditFilter(), 4)
    assert [entry.number for entry in page.entries] == [10, 9, 8, 7]
    assert page.after == 7
    page = await log.page(AuditFilter(), 6, page.after)
    assert ([entry.number for entry in page.entries], page.after) == ([6, 5, 4, 3, 2, 1], None)

    async def numbers(**wanted: Any) -> list[int]:
        return [entry.number for entry in (await log.page(AuditFilter(**wanted), 100)).entries]

    assert await numbers(actor="key:vk_1") == [10, 8, 6, 4, 2]
    assert await numbers(act="POST /0") == [9, 6, 3]
    assert await numbers(subject="thing-4") == [4]
    assert await numbers(account="acme") == [10, 9, 8, 7, 6]
    assert await numbers(account="acme", actor="key:vk_1", since_us=NOON_US + 8) == [10, 8]
    assert await numbers(since_us=NOON_US + 3, until_us=NOON_US + 5) == [4, 3]
    for hostile in ("' OR 1=1 --", "%", "_", "\0", "\ud800", "thing-4' --"):
        assert await numbers(subject=hostile) == []
        assert await numbers(account=hostile) == []


async def test_s68_a_race_of_writers_leaves_one_chain(store: Store) -> None:
    """Every writer has connections of its own, as another process would."""
    writers = [store() for _ in range(4)]
    await asyncio.gather(*(log.open() for log in writers))

    async def write(log: AuditLog, first: int) -> None:
        for number in range(first, first + 15):
            await log.append(done(number))

    await asyncio.gather(*(write(log, 100 * place) for place, log in enumerate(writers)))
    entries = await writers[0].read(0, 1000)
    assert [entry.number for entry in entries] == list(range(1, 61))
    assert len({entry.act.subject for entry in entries}) == 60
    head, found = await verified(writers[1])
    assert (head.number, found) == (60, ())


async def test_s68_verifying_while_others_write_tells_no_flaw(store: Store) -> None:
    log, other = store(), store()
    await filled(log, 20)

    async def write() -> None:
        for number in range(20):
            await other.append(done(number))

    writing = asyncio.create_task(write())
    for _ in range(5):
        assert (await verified(log))[1] == ()
    await writing
    assert (await verified(log))[1] == ()


_REST = "role, act, outcome, subject, changes, request_id, peer, account, begun, previous, hash FROM audit"

REFUSED = [
    "UPDATE audit SET actor = 'nobody' WHERE number = 2",
    "UPDATE audit SET number = 9 WHERE number = 4",
    "DELETE FROM audit WHERE number = 4",
    "DELETE FROM audit",
    "DELETE FROM audit_head",
    "UPDATE audit_head SET number = 2",
    "UPDATE audit_head SET number = 5",
    "UPDATE audit_head SET installation = 'x'",
    f"INSERT INTO audit SELECT number + 1, at_us, actor, {_REST} WHERE number = 4",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_s68_the_store_refuses_to_change_or_remove(kept: Store, statement: str) -> None:
    log = kept()
    await filled(log, 4)
    with pytest.raises((sqlite3.IntegrityError, asyncpg.PostgresError), match=r"audit log|has its head"):
        await kept.run(statement)
    assert (await verified(log))[1] == ()
    assert (await log.append(done(5))).number == 5


async def test_s68_neither_replacing_nor_emptying_goes_round_it(kept: Store) -> None:
    log = kept()
    await filled(log, 4)
    if kept.kind == "sqlite":
        statements = [
            f"INSERT OR REPLACE INTO audit SELECT number, at_us, 'x', {_REST} WHERE number = 2",
            "INSERT OR REPLACE INTO audit_head VALUES (1, 'x', 0, 'y')",
            "UPDATE OR REPLACE audit SET number = 1 WHERE number = 2",
        ]
    else:
        statements = ["TRUNCATE audit", "TRUNCATE audit_head", "INSERT INTO audit_head VALUES (2, 'x', 0, 'y')"]
    for statement in statements:
        with pytest.raises((sqlite3.IntegrityError, asyncpg.PostgresError)):
            await kept.run(statement)
    assert (await verified(log))[1] == ()


TAMPERED = [
    ("UPDATE audit SET actor = 'nobody' WHERE number = 2", [2]),
    ("DELETE FROM audit WHERE number = 6", [6]),
    ("DELETE FROM audit WHERE number > 3", [4]),
    ("DELETE FROM audit WHERE number = 3", [3]),
    ("DELETE FROM audit", [1]),
    (
        "UPDATE audit SET subject = CASE number WHEN 2 THEN 'thing-5' ELSE 'thing-2' END WHERE number IN (2, 5)",
        [2, 5],
    ),
    ("UPDATE audit_head SET number = 3", [3, 4]),
    ("UPDATE audit_head SET hash = (SELECT hash FROM audit WHERE number = 5)", [6]),
    ("UPDATE audit_head SET installation = 'another'", [1]),
]


@pytest.mark.parametrize(("statement", "numbers"), TAMPERED, ids=range(len(TAMPERED)))
async def test_s68_what_was_tampered_with_is_told(kept: Store, statement: str, numbers: list[int]) -> None:
    log = kept()
    await filled(log, 6)
    await log.close()
    await kept.run(statement, guarded=False)
    reading = kept(read_only=True)
    assert [flaw.number for flaw in (await verified(reading))[1]] == numbers


async def test_s68_the_last_entry_and_the_head_gone_is_told_by_what_was_noted(kept: Store) -> None:
    log = kept()
    await filled(log, 6)
    noted = Noted(*(await log.head())[1:])
    await log.close()
    await kept.run("DELETE FROM audit WHERE number = 6", guarded=False)
    await kept.run("UPDATE audit_head SET number = 5, hash = (SELECT hash FROM audit WHERE number = 5)", guarded=False)
    reading = kept(read_only=True)
    assert (await verified(reading))[1] == (), "nobody can tell by the store alone"
    assert [flaw.number for flaw in (await verified(reading, noted))[1]] == [6]


async def test_a_head_that_is_gone_is_not_made_anew(kept: Store) -> None:
    log = kept()
    await filled(log, 3)
    await log.close()
    await kept.run("DELETE FROM audit_head", guarded=False)
    again = kept()
    with pytest.raises((StoreUnusable, StoreAway)):
        await again.append(done(4))


async def test_who_only_reads_makes_and_changes_nothing(kept: Store) -> None:
    with pytest.raises(StoreUnusable):
        await kept(read_only=True).head()
    if kept.kind == "sqlite":
        assert not kept.path.exists()
    await filled(kept(), 2)
    reading = kept(read_only=True)
    assert len(await reading.read(0, 10)) == 2
    with pytest.raises(StoreUnusable, match="read-only"):
        await reading.append(done(3))


async def test_a_store_of_a_newer_version_is_refused(kept: Store) -> None:
    await filled(kept(), 1)
    older: tuple[Migration, ...] = ()
    with pytest.raises(StoreUnusable, match="newer"):
        await kept(migrations=older).append(done(2))


async def test_it_stands_beside_other_parts_in_one_file(kept: Store) -> None:
    """Keys, secrets and the audit log share a database, each with migrations of its own."""
    log = kept()
    ledger = SqliteLedger(kept.path) if kept.kind == "sqlite" else PostgresLedger(kept.url)
    await asyncio.gather(log.open(), ledger.open())
    await asyncio.gather(filled(log, 5), ledger.write([row(1)]))
    assert (await verified(log))[1] == ()
    await ledger.close()
