"""The audit log in one SQLite file, shared by the workers of a machine.

An entry is one transaction that holds the file's write lock from its first line: it reads the head, adds the entry that
follows it and moves the head. Triggers refuse everything else. One thread adds and one reads, so that a look through the
whole log delays nobody's act.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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
from proxy.stores.sqlite.connection import BUSY_S, reader, transaction, writer
from proxy.stores.sqlite.threads import TwoThreads

PART: Final = "audit"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / "audit")

# The statements are put together once, from constants; every value is a parameter.
_NAMES: Final = ", ".join(COLUMNS)
_HEAD: Final = "SELECT installation, number, hash FROM audit_head"
_BEGIN: Final = "INSERT INTO audit_head (one, installation, number, hash) VALUES (1, ?, 0, ?)"
_ADD: Final = f"INSERT INTO audit ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608
_MOVE: Final = "UPDATE audit_head SET number = ?, hash = ?"
_READ: Final = f"SELECT {_NAMES} FROM audit WHERE number > ? ORDER BY number LIMIT ?"  # noqa: S608
_PAGE: Final = f"""
    SELECT {_NAMES} FROM audit WHERE number < :before
    AND (:actor IS NULL OR actor = :actor) AND (:act IS NULL OR act = :act)
    AND (:subject IS NULL OR subject = :subject) AND (:account IS NULL OR account = :account)
    AND at_us >= :since_us AND at_us < :until_us
    ORDER BY number DESC LIMIT :limit
"""  # noqa: S608


class SqliteAudit:
    """The port `AuditLog`. ``read_only``: for a command beside a running server; nothing is made or changed."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        busy_s: float = BUSY_S,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._threads = TwoThreads(
            path,
            PART,
            write=None if read_only else lambda: _writer(path, migrations, busy_s),
            read=lambda: reader(path, PART, migrations, busy_s, what="audit log"),
        )

    async def open(self) -> None:
        await self.head()

    async def append(self, act: Act) -> AuditEntry:
        return await self._threads.write(lambda connection: _append(connection, act))

    async def page(self, wanted: AuditFilter, limit: int, before: int | None = None) -> AuditPage:
        return await self._threads.read(lambda connection: _page(connection, wanted, limit, before))

    async def read(self, after: int, limit: int) -> tuple[AuditEntry, ...]:
        return await self._threads.read(
            lambda connection: tuple(entry_from(row) for row in connection.execute(_READ, (after, limit)))
        )

    async def head(self) -> AuditHead:
        return await self._threads.read(_head)

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._threads.close()


def _writer(path: Path, migrations: Sequence[Migration], busy_s: float) -> sqlite3.Connection:
    """The connection that writes. Gives a new log its installation, once."""
    connection = writer(path, PART, migrations, busy_s)
    try:
        with transaction(connection):
            if connection.execute(_HEAD).fetchone() is None:
                installation = secrets.token_hex(16)
                connection.execute(_BEGIN, (installation, anchor(installation)))
    except BaseException:
        connection.close()
        raise
    return connection


def _append(connection: sqlite3.Connection, act: Act) -> AuditEntry:
    with transaction(connection):
        entry = chained(_head(connection), act)
        connection.execute(_ADD, columns_of(entry))
        connection.execute(_MOVE, (entry.number, entry.hash))
    return entry


def _head(connection: sqlite3.Connection) -> AuditHead:
    found = connection.execute(_HEAD).fetchone()
    if found is None:
        raise StoreUnusable("The audit log has no head: somebody has removed it. Restore trust.sqlite3 from a backup.")
    return AuditHead(*found)


def _page(connection: sqlite3.Connection, wanted: AuditFilter, limit: int, before: int | None) -> AuditPage:
    values: dict[str, Any] = {
        name: None if value is None else storable(value)
        for name, value in (("actor", wanted.actor), ("act", wanted.act), ("subject", wanted.subject))
    }
    values |= {
        "account": None if wanted.account is None else storable(wanted.account),
        "since_us": wanted.since_us or 0,
        "until_us": NUMBER_MAX + 1 if wanted.until_us is None else wanted.until_us,
        "before": NUMBER_MAX + 1 if before is None else before,
        "limit": limit + 1,  # one more tells whether there is another page
    }
    found = connection.execute(_PAGE, values).fetchall()
    entries = tuple(entry_from(row) for row in found[:limit])
    return AuditPage(entries, entries[-1].number if entries and len(found) > limit else None)
