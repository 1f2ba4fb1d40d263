"""Where the settings say that virtual keys are kept, and the peppers that they are hashed under."""

from proxy.core.virtual_key import Pepper, Peppers
from proxy.core.weak_secret import weakness
from proxy.ports import ExchangeLog, KeyStore
from proxy.server import own_secrets
from proxy.server.databases import TRUST_FILE, postgres_url
from proxy.server.own_secrets import HOW_TO_MAKE_ONE, PEPPER, SecretRefused
from proxy.server.settings import Settings


def peppers(settings: Settings, log: ExchangeLog) -> Peppers:
    """The peppers, the current one made if there is none. Errors: SecretRefused, SecretUnavailable."""
    if settings.database_url is not None and settings.pepper is None:
        raise SecretRefused(
            f"{PEPPER.variable} is not set, and DATABASE_URL is: instances that share a database must hash keys under the "
            f"same pepper. Make one with {HOW_TO_MAKE_ONE}, and give it to all of them."
        )
    held = own_secrets.obtain(PEPPER, settings.pepper, settings.data)
    if held.made:
        log.event("a pepper was made; without it no virtual key verifies", file=held.origin)
    before = settings.pepper_previous
    _refuse_weak("PENSTOCK_PEPPER_PREVIOUS", before)
    return Peppers(Pepper.of(held.value), None if before in (None, held.value) else Pepper.of(before))


def api_key(settings: Settings) -> str | None:
    """The environment's client key. Errors: SecretRefused for a weak one."""
    _refuse_weak("PENSTOCK_API_KEY", settings.api_key)
    return settings.api_key


def _refuse_weak(variable: str, given: str | None) -> None:
    weak = None if given is None else weakness(given)
    if weak is not None:
        raise SecretRefused(f"{variable} {weak}. Make a good one with {HOW_TO_MAKE_ONE}, or unset it.")


def keys(settings: Settings) -> KeyStore:
    """The keys' store, not yet opened. Raises `StoreUnusable` as `postgres_url` does."""
    url = postgres_url(settings)
    if url is None:
        from proxy.stores.sqlite.keys import SqliteKeys  # noqa: PLC0415 - only what is used

        return SqliteKeys(settings.data / TRUST_FILE)
    from proxy.stores.postgres.keys import PostgresKeys  # noqa: PLC0415 - an extra

    return PostgresKeys(url)
