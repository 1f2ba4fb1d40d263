"""The audit log in PostgreSQL, shared by all instances.

Who adds an entry locks the head's row until the end of the transaction, so entries come one behind the other. Triggers
refuse to change or remove one; who owns the tables can drop the triggers, and the chain tells it.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.core.audit import (
    COLUMNS,
    NUMBER_MAX,
    Act,
    AuditEntry,
    AuditFilter,
    AuditHead,
    AuditPage,
    anchor,
    chained,
    columns_of,
    entry_from,
)
from proxy.core.text import storable
from proxy.ports import StoreUnusable
from proxy.stores.migrations import Migration, load
from proxy.stores.postgres.connection import Database

if TYPE_CHECKING:
    from proxy.stores.postgres.connection import Connection

PART: Final = "audit"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / "audit")

# The statements are put together once, from constants; every value is a parameter.
_NAMES: Final = ", ".join(COLUMNS)
_HEAD: Final = "SELECT installation, number, hash FROM penstock_audit_head"
_LOCK: Final = f"{_HEAD} FOR UPDATE"
_BEGIN: Final = """
    INSERT INTO penstock_audit_head (one, installation, number, hash)
    SELECT 1, $1, 0, $2 WHERE NOT EXISTS (SELECT 1 FROM penstock_audit) ON CONFLICT DO NOTHING
"""
_ADD: Final = (
    f"INSERT INTO penstock_audit ({_NAMES}) "  # noqa: S608
    f"VALUES ({', '.join(f'${number + 1}' for number in range(len(COLUMNS)))})"
)
_MOVE: Final = "UPDATE penstock_audit_head SET number = $1, hash = $2"
_READ: Final = f"SELECT {_NAMES} FROM penstock_audit WHERE number > $1 ORDER BY number LIMIT $2"  # noqa: S608
_PAGE: Final = f"""
    SELECT {_NAMES} FROM penstock_audit WHERE number < $1
    AND ($2::TEXT IS NULL OR actor = $2) AND ($3::TEXT IS NULL OR act = $3)
    AND ($4::TEXT IS NULL OR subject = $4) AND ($5::TEXT IS NULL OR account = $5)
    AND at_us >= $6 AND at_us < $7
    ORDER BY number DESC LIMIT $8
"""  # noqa: S608


class PostgresAudit:
    """The port `AuditLog`. ``read_only``: for a command beside running servers; nothing is made or changed."""

    def __init__(self, url: str, *, read_only: bool = False, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._database = Database(url, PART, migrations, read_only=read_only)
        self._read_only = read_only
        self._begun = False

    async def open(self) -> None:
        await self.head()

    async def append(self, act: Act) -> AuditEntry:
        async with self._database.connection(writing=True) as connection, connection.transaction():
            entry = chained(await self._head(connection, _LOCK), act)
            await connection.execute(_ADD, *columns_of(entry))
            await connection.execute(_MOVE, entry.number, entry.hash)
        return entry

    async def page(self, wanted: AuditFilter, limit: int, before: int | None = None) -> AuditPage:
        texts = (wanted.actor, wanted.act, wanted.subject, wanted.account)
        async with self._database.connection() as connection:
            found = await connection.fetch(
                _PAGE,
                NUMBER_MAX + 1 if before is None else before,
                *(None if text is None else storable(text) for text in texts),
                wanted.since_us or 0,
                NUMBER_MAX + 1 if wanted.until_us is None else wanted.until_us,
                limit + 1,  # one more tells whether there is another page
            )
        entries = tuple(entry_from(tuple(record)) for record in found[:limit])
        return AuditPage(entries, entries[-1].number if entries and len(found) > limit else None)

    async def read(self, after: int, limit: int) -> tuple[AuditEntry, ...]:
        async with self._database.connection() as connection:
            return tuple(entry_from(tuple(record)) for record in await connection.fetch(_READ, after, limit))

    async def head(self) -> AuditHead:
        async with self._database.connection() as connection:
            return await self._head(connection, _HEAD)

    async def close(self) -> None:
        await self._database.close()

    async def _head(self, connection: "Connection", statement: str) -> AuditHead:
        found = await connection.fetchrow(statement)
        if found is None and not self._read_only and not self._begun:
            installation = secrets.token_hex(16)
            await connection.execute(_BEGIN, installation, anchor(installation))
            self._begun = True
            found = await connection.fetchrow(statement)
        if found is None:
            raise StoreUnusable(
                f"{self._database.name}: the audit log has no head: somebody has removed it, or it is new."
            )
        return AuditHead(*found)
