"""Which database the settings name: files in the data directory, or one PostgreSQL for all of it."""

from importlib.util import find_spec
from typing import Final

from proxy.core import redact
from proxy.ports import StoreUnusable
from proxy.server.settings import Settings

LEDGER_FILE: Final = "ledger.sqlite3"
TRUST_FILE: Final = "trust.sqlite3"  # virtual keys, sealed secrets and the audit log


def postgres_url(settings: Settings) -> str | None:
    """None: SQLite. Raises `StoreUnusable` for an address that is none, and for a missing driver."""
    url = settings.database_url
    if url is None:
        return None
    if not url.startswith(("postgresql://", "postgres://")):
        raise StoreUnusable(
            f"DATABASE_URL must be postgresql://user@host/database; it begins with {redact.text(url.partition(':')[0])!r}. "
            "Unset it to use SQLite."
        )
    if find_spec("asyncpg") is None:
        raise StoreUnusable(
            "DATABASE_URL needs the driver asyncpg (the extra `postgres`): pip install asyncpg. Unset it to use SQLite."
        )
    return url
