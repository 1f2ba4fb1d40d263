"""A pool of connections to one database, migrated; and the foreign errors mapped, here and nowhere else."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import asyncpg

from proxy.ports import StoreAway, StoreUnusable
from proxy.stores.migrations import Migration, pending, refuse_old

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

CONNECT_S: Final = 10.0
COMMAND_S: Final = 30.0
CLOSE_S: Final = 2.0
POOL_MAX: Final = 3  # one writes, two read reports
# A process that is stopped in the middle of a transaction holds its locks; the server ends it, so that others go on.
_SETTINGS: Final = {
    "application_name": "penstock",
    "idle_in_transaction_session_timeout": "10000",
    "lock_timeout": "10000",
}
_MIGRATING: Final = 0x50454E01  # keys of advisory locks: "PEN", and a number
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS penstock_schema
    (part TEXT NOT NULL, version BIGINT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (part, version))
"""
_EXISTS: Final = "SELECT to_regclass('penstock_schema') IS NOT NULL"
_VERSION: Final = "SELECT coalesce(max(version), 0) FROM penstock_schema WHERE part = $1"
_APPLIED: Final = "INSERT INTO penstock_schema (part, version, name) VALUES ($1, $2, $3)"
_REFUSED: Final = (  # waiting does not help: who connects, where to, or what they may do is wrong
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
)


_AWAY: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class Database:
    """Connects when it is first needed, so that a database that is away at start is no reason not to serve."""

    def __init__(self, url: str, part: str, migrations: Sequence[Migration], *, read_only: bool = False) -> None:
        self._url = url
        self._part = part
        self._migrations = migrations
        self._read_only = read_only
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self.name = _shown(url)

    @asynccontextmanager
    async def connection(self, *, writing: bool = False) -> AsyncIterator["Connection"]:
        """A connection of one's own for a while. Raises `StoreAway`, `StoreUnusable`, also for what is done with it."""
        if writing and self._read_only:
            raise StoreUnusable(f"{self.name} is open read-only.")
        try:
            pool = self._pool or await self._open()
            async with pool.acquire(timeout=CONNECT_S) as connection:
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    connection.terminate()  # it was cut while it was idle, and the driver has lost its place in it
                    raise
        except asyncpg.UndefinedTableError as error:
            self._forget()
            raise StoreAway(f"{self.name}: {error}") from error
        except _REFUSED as error:
            raise StoreUnusable(f"{self.name}: {error}. Set DATABASE_URL to a database of ours.") from error
        except _AWAY as error:
            raise StoreAway(f"{self.name}: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), CLOSE_S)
        except (TimeoutError, asyncpg.InterfaceError):
            pool.terminate()

    def _forget(self) -> None:
        """The database was emptied: whoever asks next connects anew, and brings the schema up to date."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is not None:
                return self._pool
            settings = {**_SETTINGS, "default_transaction_read_only": "on"} if self._read_only else _SETTINGS
            pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=POOL_MAX,
                timeout=CONNECT_S,
                command_timeout=COMMAND_S,
                server_settings=settings,
            )
            try:
                async with pool.acquire(timeout=CONNECT_S) as connection:
                    await (self._check(connection) if self._read_only else self._migrate(connection))
            except BaseException:
                pool.terminate()
                raise
            self._pool = pool
            return pool

    async def _migrate(self, connection: "Connection") -> None:
        """One at a time, whoever starts: the lock ends with the transaction."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATING)
            await connection.execute(_TABLE)
            applied = await connection.fetchval(_VERSION, self._part)
            for migration in pending(self._migrations, applied, self.name):
                await connection.execute(migration.sql)
                await connection.execute(_APPLIED, self._part, migration.version, migration.name)

    async def _check(self, connection: "Connection") -> None:
        known = await connection.fetchval(_EXISTS)
        refuse_old(self._migrations, await connection.fetchval(_VERSION, self._part) if known else 0, self.name)


def _shown(url: str) -> str:
    """Where the database is, for messages: never the password. Raises `StoreUnusable` for what is no address."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise StoreUnusable("DATABASE_URL is no address: write postgresql://user@host:5432/database") from error
    return f"PostgreSQL at {parts.hostname or 'the local socket'}{port}{parts.path}"
