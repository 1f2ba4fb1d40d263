"""Where the settings say that the books are kept: the ledger, and the journal of what has not reached it."""

from typing import Final

from proxy.ports import Ledger
from proxy.server.databases import LEDGER_FILE, postgres_url
from proxy.server.settings import Settings

JOURNAL: Final = "journal"


def ledger(settings: Settings, *, read_only: bool = False) -> Ledger:
    """The ledger, not yet opened. Raises `StoreUnusable` as `postgres_url` does."""
    url = postgres_url(settings)
    if url is None:
        from proxy.stores.sqlite.ledger import SqliteLedger  # noqa: PLC0415 - only what is used

        return SqliteLedger(settings.data / LEDGER_FILE, read_only=read_only)
    from proxy.stores.postgres.ledger import PostgresLedger  # noqa: PLC0415 - an extra

    return PostgresLedger(url, read_only=read_only)
