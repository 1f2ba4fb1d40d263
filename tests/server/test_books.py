"""Which ledger the environment names."""

import sys
from pathlib import Path

import pytest

from proxy.ports import StoreUnusable
from proxy.server import books
from proxy.server.settings import Settings
from proxy.stores.postgres.ledger import PostgresLedger
from proxy.stores.sqlite.ledger import SqliteLedger


async def test_sqlite_unless_a_database_is_named(tmp_path: Path) -> None:
    ledger = books.ledger(Settings.of({"PENSTOCK_DATA": str(tmp_path), "DATABASE_URL": ""}))
    assert isinstance(ledger, SqliteLedger)
    await ledger.open()
    assert (tmp_path / "ledger.sqlite3").stat().st_mode & 0o777 == 0o600
    await ledger.close()
    assert isinstance(books.ledger(Settings.of({"DATABASE_URL": "postgres://h/d"})), PostgresLedger)
    assert isinstance(books.ledger(Settings.of({"DATABASE_URL": "postgresql://h/d"})), PostgresLedger)


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("proxy.stores.postgres.ledger", "proxy.stores.postgres.connection"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StoreUnusable, match="needs the driver asyncpg"):
        books.ledger(Settings.of({"DATABASE_URL": "postgresql://h/d"}))
