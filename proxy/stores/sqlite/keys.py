"""Virtual keys in one SQLite file, shared by the workers of a machine.

One thread does it all: changes are rare, and what processes ask twice a second (has anything changed?) reads two pages that
are in memory.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from proxy.core.key_document import COLUMNS, columns_of, record_from
from proxy.core.key_record import KeyRecord
from proxy.core.text import storable
from proxy.ports import KeptKey, KeyChanges, KeyCursor, KeyPage
from proxy.stores.migrations import Migration, load
from proxy.stores.sqlite.connection import BUSY_S, transaction, writer
from proxy.stores.sqlite.threads import OneThread
from proxy.terms import AccountId, VirtualKeyId

PART: Final = "keys"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / PART)

# The statements are put together once, from constants; every value is a parameter. Each names the account that it is for.
_NAMES: Final = ", ".join((*COLUMNS, "revision"))
_OF_ACCOUNT: Final = "(:of IS NULL OR account = :of)"
_INSERT: Final = (
    f"INSERT INTO virtual_key ({_NAMES}) VALUES ({', '.join(f':{name}' for name in COLUMNS)}, :revision) "  # noqa: S608
    "ON CONFLICT (id) DO NOTHING"
)
_FIXED: Final = frozenset({"id", "account", "created_at"})
_UPDATE: Final = (
    f"UPDATE virtual_key SET revision = :revision, {', '.join(f'{name} = :{name}' for name in COLUMNS if name not in _FIXED)} "  # noqa: S608, E501
    "WHERE id = :id AND account = :account AND created_at = :created_at AND revision = :expected"
)
_REVISION: Final = "SELECT revision FROM virtual_key_revision WHERE one = 1"
_REVISED: Final = "UPDATE virtual_key_revision SET revision = ? WHERE one = 1"
_ONE: Final = f"SELECT {_NAMES} FROM virtual_key WHERE id = :id AND {_OF_ACCOUNT}"  # noqa: S608
_PAGE: Final = (
    f"SELECT {_NAMES} FROM virtual_key WHERE (created_at, id) < (:created_at, :id) AND {_OF_ACCOUNT} "  # noqa: S608
    "ORDER BY created_at DESC, id DESC LIMIT :limit"
)
_CHANGES: Final = (
    f"SELECT {_NAMES} FROM virtual_key WHERE revision > :after AND {_OF_ACCOUNT} "  # noqa: S608
    "ORDER BY revision LIMIT :limit"
)
_LAST: Final = 2**62  # later than any moment


class SqliteKeys:
    """The port `KeyStore`."""

    def __init__(self, path: Path, *, busy_s: float = BUSY_S, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._thread = OneThread(path, PART, lambda: _connected(path, migrations, busy_s))

    async def open(self) -> None:
        await self._thread.run(lambda _: None)

    async def create(self, record: KeyRecord) -> bool:
        return await self._thread.run(lambda connection: _changed(connection, _INSERT, columns_of(record)))

    async def get(self, key_id: str, account: AccountId | None = None) -> KeptKey | None:
        values = {"id": storable(key_id), "of": account}
        found = await self._thread.run(lambda connection: _kept(connection, _ONE, values))
        return found[0] if found else None

    async def page(self, limit: int, after: KeyCursor | None = None, account: AccountId | None = None) -> KeyPage:
        behind = after or KeyCursor(_LAST, "")
        values = {"created_at": behind.created_at, "id": storable(behind.id), "of": account, "limit": limit + 1}
        rows = await self._thread.run(lambda connection: _rows(connection, _PAGE, values))
        keys = tuple(map(_key, rows[:limit]))
        last = rows[limit - 1] if len(rows) > limit else None
        return KeyPage(keys, None if last is None else KeyCursor(last["created_at"], last["id"]))

    async def swap(self, record: KeyRecord, expected: int) -> bool:
        values = {**columns_of(record), "expected": expected}
        return await self._thread.run(lambda connection: _changed(connection, _UPDATE, values))

    async def changes(self, after_revision: int, limit: int) -> KeyChanges:
        values = {"after": after_revision, "of": None, "limit": limit}

        def work(connection: sqlite3.Connection) -> KeyChanges:
            revision = int(connection.execute(_REVISION).fetchone()[0])
            return KeyChanges(revision, _kept(connection, _CHANGES, values) if revision > after_revision else ())

        return await self._thread.run(work)

    async def close(self) -> None:
        """Waits for what is being done."""
        await self._thread.close()


def _connected(path: Path, migrations: Sequence[Migration], busy_s: float) -> sqlite3.Connection:
    connection = writer(path, PART, migrations, busy_s)
    connection.row_factory = sqlite3.Row
    return connection


def _changed(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any]) -> bool:
    """Carry out one change under a revision of its own; False, and nothing is changed, where it changes no row."""
    with transaction(connection):
        revision = connection.execute(_REVISION).fetchone()[0] + 1
        if connection.execute(statement, {**values, "revision": revision}).rowcount != 1:
            return False
        connection.execute(_REVISED, (revision,))
    return True


def _rows(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any]) -> list[sqlite3.Row]:
    return connection.execute(statement, values).fetchall()


def _kept(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any]) -> tuple[KeptKey, ...]:
    return tuple(map(_key, _rows(connection, statement, values)))


def _key(row: sqlite3.Row) -> KeptKey:
    columns = dict(row)
    return KeptKey(VirtualKeyId(columns["id"]), columns["revision"], record_from(columns))
