"""Sealed secrets in one SQLite file, shared by the processes of a machine. One thread: the loop waits for no disk."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from proxy.ports import SealedSecret, SecretsHeld
from proxy.stores.migrations import Migration, load
from proxy.stores.sqlite.connection import BUSY_S, mapped, transaction, writer

PART: Final = "secrets"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / PART)

_Result = TypeVar("_Result")

_CHANGE: Final = "SELECT change FROM secret_change"
_CHANGED: Final = "UPDATE secret_change SET change = change + 1"
_ALL: Final = "SELECT name, version, key_id, sealed, created_us FROM secret ORDER BY name"
_PUT: Final = "INSERT OR REPLACE INTO secret (name, version, key_id, sealed, created_us) VALUES (?, ?, ?, ?, ?)"
_REMOVE: Final = "DELETE FROM secret WHERE name = ?"


class SqliteSecrets:
    """The port `SecretStore`."""

    def __init__(self, path: Path, *, busy_s: float = BUSY_S, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._path = path
        self._busy_s = busy_s
        self._migrations = migrations
        self._closed = False
        self._connection: sqlite3.Connection | None = None  # the thread's
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="secrets")

    async def change(self) -> int:
        return await self._run(_change)

    async def load(self) -> SecretsHeld:
        return await self._run(_load)

    async def put(self, secret: SealedSecret) -> bool:
        return await self._run(lambda connection: _put(connection, secret))

    async def remove(self, name: str) -> bool:
        return await self._run(lambda connection: _remove(connection, name))

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._done, work)

    def _done(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        with mapped(self._path):
            if self._connection is None:
                self._connection = writer(self._path, PART, self._migrations, self._busy_s)
                self._connection.execute("PRAGMA secure_delete = ON")  # what was sealed with an old key is overwritten
            try:
                return work(self._connection)
            except sqlite3.Error:
                self._disconnect()  # and with it whatever is half done; the next call opens it anew
                raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


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
