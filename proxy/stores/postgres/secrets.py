"""Sealed secrets in PostgreSQL, shared by all instances. Who changes them holds the row of the change counter meanwhile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from proxy.ports import SealedSecret, SecretsHeld
from proxy.stores.migrations import Migration, load
from proxy.stores.postgres.connection import Database

PART: Final = "secrets"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations" / PART)

_CHANGE: Final = "SELECT change FROM penstock_secret_change"
_LOCKED: Final = f"{_CHANGE} FOR UPDATE"
_CHANGED: Final = "UPDATE penstock_secret_change SET change = change + 1"
_ALL: Final = "SELECT name, version, key_id, sealed, created_us FROM penstock_secret ORDER BY name"
_PUT: Final = """
    INSERT INTO penstock_secret (name, version, key_id, sealed, created_us) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (name) DO UPDATE SET
    version = excluded.version, key_id = excluded.key_id, sealed = excluded.sealed, created_us = excluded.created_us
"""
_REMOVE: Final = "DELETE FROM penstock_secret WHERE name = $1"


class PostgresSecrets:
    """The port `SecretStore`."""

    def __init__(self, url: str, *, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._database = Database(url, PART, migrations)

    async def change(self) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_CHANGE))

    async def load(self) -> SecretsHeld:
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            change = int(await connection.fetchval(_CHANGE))
            rows = await connection.fetch(_ALL)
        return SecretsHeld(change, tuple(SealedSecret(*row.values()) for row in rows))

    async def put(self, secret: SealedSecret) -> bool:
        async with self._database.connection(writing=True) as connection, connection.transaction():
            if await connection.fetchval(_LOCKED) != secret.version - 1:
                return False
            values = (secret.name, secret.version, secret.key_id, secret.sealed, secret.created_us)
            await connection.execute(_PUT, *values)
            await connection.execute(_CHANGED)
        return True

    async def remove(self, name: str) -> bool:
        async with self._database.connection(writing=True) as connection, connection.transaction():
            await connection.fetchval(_LOCKED)
            if await connection.execute(_REMOVE, name) == "DELETE 0":
                return False
            await connection.execute(_CHANGED)
        return True

    async def close(self) -> None:
        await self._database.close()
