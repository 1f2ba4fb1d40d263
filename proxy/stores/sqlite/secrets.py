"""Sealed secrets in one SQLite file, shared by the processes of a machine. One thread: the loop waits for no disk."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy.ports import SealedSecret, SecretsHeld
from proxy.stores.migrations import Migration, load
from proxy.stores.sqlite.connection import BUSY_S, transaction, writer
from proxy.stores.sqlite.threads import OneThread

PART: Final = "secrets"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / PART)

_CHANGE: Final = "SELECT change FROM secret_change"
_CHANGED: Final = "UPDATE secret_change SET change = change + 1"
_ALL: Final = "SELECT name, version, key_id, sealed, created_us FROM secret ORDER BY name"
_PUT: Final = "INSERT OR REPLACE INTO secret (name, version, key_id, sealed, created_us) VALUES (?, ?, ?, ?, ?)"
_REMOVE: Final = "DELETE FROM secret WHERE name = ?"


class SqliteSecrets:
    """The port `SecretStore`."""

    def __init__(self, path: Path, *, busy_s: float = BUSY_S, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._thread = OneThread(path, PART, lambda: _connected(path, migrations, busy_s))

    async def change(self) -> int:
        return await self._thread.run(_change)

    async def load(self) -> SecretsHeld:
        return await self._thread.run(_load)

    async def put(self, secret: SealedSecret) -> bool:
        return await self._thread.run(lambda connection: _put(connection, secret))

    async def remove(self, name: str) -> bool:
        return await self._thread.run(lambda connection: _remove(connection, name))

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._thread.close()


def _connected(path: Path, migrations: Sequence[Migration], busy_s: float) -> sqlite3.Connection:
    connection = writer(path, PART, migrations, busy_s)
    connection.execute("PRAGMA secure_delete = ON")  # what was sealed with an old key is overwritten
    return connection


def _change(connection: sqlite3.Connection) -> int:
    return int(connection.execute(_CHANGE).fetchone()[0])


def _load(connection: sqlite3.Connection) -> SecretsHeld:
    connection.execute("BEGIN")
    try:
        change = _change(connection)
        rows = connection.execute(_ALL).fetchall()
    finally:
        connection.execute("COMMIT")
    return SecretsHeld(change, tuple(SealedSecret(*row) for row in rows))


def _put(connection: sqlite3.Connection, secret: SealedSecret) -> bool:
    with transaction(connection):
        if _change(connection) != secret.version - 1:
            return False
        values = (secret.name, secret.version, secret.key_id, secret.sealed, secret.created_us)
        connection.execute(_PUT, values)
        connection.execute(_CHANGED)
    return True


def _remove(connection: sqlite3.Connection, name: str) -> bool:
    with transaction(connection):
        if not connection.execute(_REMOVE, (name,)).rowcount:
            return False
        connection.execute(_CHANGED)
    return True
