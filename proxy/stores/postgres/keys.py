"""Virtual keys in PostgreSQL, shared by all instances."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from proxy.core.key_document import COLUMNS, columns_of, record_from
from proxy.core.key_record import KeyRecord
from proxy.core.text import storable
from proxy.ports import KeptKey, KeyChanges, KeyCursor, KeyPage
from proxy.stores.migrations import Migration, load
from proxy.stores.postgres.connection import Database
from proxy.terms import AccountId, VirtualKeyId

PART: Final = "keys"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / PART)

# The statements are put together once, from constants; every value is a parameter. Each names the account that it is for.
_NAMES: Final = ", ".join((*COLUMNS, "revision"))
_PLACE: Final = {name: f"${number}" for number, name in enumerate(COLUMNS, 1)}
_REVISION_PLACE: Final = f"${len(COLUMNS) + 1}"
_INSERT: Final = (
    f"INSERT INTO penstock_virtual_key ({_NAMES}) VALUES ({', '.join(_PLACE.values())}, {_REVISION_PLACE}) "  # noqa: S608
    "ON CONFLICT (id) DO NOTHING"
)
_UPDATE: Final = (
    f"UPDATE penstock_virtual_key SET revision = {_REVISION_PLACE}, "  # noqa: S608
    + ", ".join(f"{name} = {place}" for name, place in _PLACE.items() if name not in {"id", "account", "created_at"})
    + f" WHERE id = {_PLACE['id']} AND account = {_PLACE['account']} AND created_at = {_PLACE['created_at']} "
    f"AND revision = ${len(COLUMNS) + 2}"
)
_REVISION: Final = "SELECT revision FROM penstock_virtual_key_revision WHERE one = 1"
_LOCKED: Final = f"{_REVISION} FOR UPDATE"
_REVISED: Final = "UPDATE penstock_virtual_key_revision SET revision = $1 WHERE one = 1"
_ONE: Final = f"SELECT {_NAMES} FROM penstock_virtual_key WHERE id = $1 AND ($2::TEXT IS NULL OR account = $2)"  # noqa: S608
_PAGE: Final = (
    f"SELECT {_NAMES} FROM penstock_virtual_key WHERE (created_at, id) < ($1, $2) "  # noqa: S608
    "AND ($3::TEXT IS NULL OR account = $3) ORDER BY created_at DESC, id DESC LIMIT $4"
)
_CHANGES: Final = (
    f"SELECT {_NAMES} FROM penstock_virtual_key WHERE revision > $1 "  # noqa: S608
    "AND ($2::TEXT IS NULL OR account = $2) ORDER BY revision LIMIT $3"
)
_LAST: Final = 2**62  # later than any moment


class PostgresKeys:
    """The port `KeyStore`."""

    def __init__(self, url: str, *, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._database = Database(url, PART, migrations)

    async def open(self) -> None:
        async with self._database.connection():
            return

    async def create(self, record: KeyRecord) -> bool:
        return await self._changed(_INSERT, list(columns_of(record).values()))

    async def get(self, key_id: str, account: AccountId | None = None) -> KeptKey | None:
        async with self._database.connection() as connection:
            found = await connection.fetchrow(_ONE, storable(key_id), account)
        return None if found is None else _key(dict(found))

    async def page(self, limit: int, after: KeyCursor | None = None, account: AccountId | None = None) -> KeyPage:
        behind = after or KeyCursor(_LAST, "")
        async with self._database.connection() as connection:
            found = await connection.fetch(_PAGE, behind.created_at, storable(behind.id), account, limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        keys = tuple(_key(dict(row)) for row in found[:limit])
        return KeyPage(keys, None if last is None else KeyCursor(last["created_at"], last["id"]))

    async def swap(self, record: KeyRecord, expected: int) -> bool:
        return await self._changed(_UPDATE, list(columns_of(record).values()), expected)

    async def changes(self, after_revision: int, limit: int) -> KeyChanges:
        async with self._database.connection() as connection:
            revision = int(await connection.fetchval(_REVISION))
            found = await connection.fetch(_CHANGES, after_revision, None, limit) if revision > after_revision else []
        return KeyChanges(revision, tuple(_key(dict(row)) for row in found))

    async def close(self) -> None:
        await self._database.close()

    async def _changed(self, statement: str, values: Sequence[Any], *more: int) -> bool:
        """Carry out one change under a revision of its own; False, and nothing is changed, where it changes no row."""
        async with self._database.connection(writing=True) as connection, connection.transaction():
            revision = await connection.fetchval(_LOCKED) + 1
            done = await connection.execute(statement, *values, revision, *more)
            if done.rpartition(" ")[2] != "1":  # "UPDATE 1"
                return False
            await connection.execute(_REVISED, revision)
        return True


def _key(columns: Mapping[str, Any]) -> KeptKey:
    return KeptKey(VirtualKeyId(columns["id"]), columns["revision"], record_from(columns))
