"""What only one technology can do wrong."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from proxy.core.summary import Span
from proxy.ports import StoreAway, StoreUnusable
from proxy.stores import migrations
from proxy.stores.postgres.ledger import PostgresLedger
from proxy.stores.sqlite.ledger import SqliteLedger
from tests.postgres import Postgres
from tests.rows import DAY, row


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.write_text("something else " * 100)
    ledger = SqliteLedger(path)
    with pytest.raises(StoreUnusable, match="is no SQLite database"):
        await ledger.write([row(1)])
    await ledger.close()


async def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    ledger = SqliteLedger(tmp_path / "data" / "ledger.sqlite3")
    with pytest.raises(StoreAway):
        await ledger.open()
    await ledger.close()


async def test_a_write_that_waits_for_a_lock_holds_up_no_reader(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3", busy_s=0.3)
    await ledger.write([row(1)])
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(ledger.write([row(2)]))
    assert await ledger.row(row(1).id) == row(1)
    assert not writing.done()
    with pytest.raises(StoreAway, match="locked"):
        await writing
    other.execute("ROLLBACK")
    other.close()
    assert await ledger.write([row(2)]) == 1
    await ledger.close()


async def test_a_database_that_is_not_there_is_told_without_its_password(postgres: Postgres) -> None:
    url = postgres.url("nowhere").replace("penstock@", "penstock:hunter2@")
    ledger = PostgresLedger(url)
    with pytest.raises(StoreUnusable, match='database "nowhere" does not exist') as told:
        await ledger.open()
    assert "hunter2" not in str(told.value)
    await ledger.close()


@pytest.mark.parametrize("url", ["postgresql://h:port/d", "postgresql://u:hunter2@[::1/d"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(StoreUnusable, match="is no address") as told:
        PostgresLedger(url)
    assert "hunter2" not in str(told.value)


async def test_what_may_not_be_done_is_told(postgres: Postgres, database: str) -> None:
    await postgres.execute("DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    await postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    ledger = PostgresLedger(database.replace("penstock@", "guest@"))
    with pytest.raises(StoreUnusable, match="permission denied"):
        await ledger.open()
    await ledger.close()


async def test_connections_that_the_server_cuts_are_replaced(postgres: Postgres, database: str) -> None:
    ledger = PostgresLedger(database)
    await ledger.write([row(1)])
    await postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock'")
    for number in range(2, 6):
        try:
            await ledger.write([row(number)])
        except StoreAway:
            await ledger.write([row(number)])
    assert (await ledger.summary(Span(DAY, DAY))).total.calls == 5
    await ledger.close()


def test_migrations_are_numbered_without_gaps(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("A")
    (tmp_path / "0003_c.sql").write_text("C")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(AssertionError):
        migrations.load(tmp_path)
    (tmp_path / "0002_b.sql").write_text("B")
    known = migrations.load(tmp_path)
    assert [(one.version, one.sql) for one in known] == [(1, "A"), (2, "B"), (3, "C")]
    assert [one.version for one in migrations.pending(known, 1, "it")] == [2, 3]
