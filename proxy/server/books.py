"""Which ledger the settings name: SQLite in the data directory, or PostgreSQL. Imports the one that is used."""

from typing import Final

from proxy.core import redact
from proxy.ports import Ledger, StoreUnusable
from proxy.server.settings import Settings

FILE: Final = "ledger.sqlite3"
JOURNAL: Final = "journal"


def ledger(settings: Settings, *, read_only: bool = False) -> Ledger:
    """The ledger, not yet opened. Raises `StoreUnusable` for an address that is none, and for a missing driver."""
    url = settings.database_url
    if url is None:
        from proxy.stores.sqlite.ledger import SqliteLedger  # noqa: PLC0415 - only what is used

        return SqliteLedger(settings.data / FILE, read_only=read_only)
    if not url.startswith(("postgresql://", "postgres://")):
        raise StoreUnusable(
            f"DATABASE_URL must be postgresql://user@host/database; it begins with {redact.text(url.partition(':')[0])!r}. "
            "Unset it to keep the ledger in SQLite."
        )
    try:
        from proxy.stores.postgres.ledger import PostgresLedger  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise StoreUnusable(
            f"DATABASE_URL needs the driver {error.name} (the extra `postgres`): pip install {error.name}. "
            "Unset it to keep the ledger in SQLite."
        ) from error
    return PostgresLedger(url, read_only=read_only)
