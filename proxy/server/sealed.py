"""The sealed secrets of this installation: in which store they are, which keys open them, and what they hold.

The master key stands in the environment, or in a file that was made once in the data directory. A shared database is opened
with the environment's alone: a file that one instance made would seal what the others cannot open.
"""

import asyncio
import contextlib
from typing import Final

from proxy.core.credential import NOTHING_SEALED, Vault
from proxy.core.envelope import Keyring, MasterKey, NotOpened, opened
from proxy.ports import SecretsHeld, SecretStore, StoreAway, StoreUnusable
from proxy.server import own_secrets
from proxy.server.databases import TRUST_FILE, postgres_url
from proxy.server.own_secrets import MASTER_KEY, PREVIOUS_MASTER_KEY, OwnSecret
from proxy.server.settings import Settings

READ_S: Final = 2.0  # for the store at the start; afterwards the watch reads it


class SealedRefused(Exception):  # noqa: N818 - a message for whoever starts the process
    """What is sealed could not be opened by this process, ever. The message says why and what to do."""


def store(settings: Settings) -> SecretStore:
    """The store, not yet opened. Raises `StoreUnusable` as `postgres_url` does."""
    url = postgres_url(settings)
    if url is None:
        from proxy.stores.sqlite.secrets import SqliteSecrets  # noqa: PLC0415 - only what is used

        return SqliteSecrets(settings.data / TRUST_FILE)
    from proxy.stores.postgres.secrets import PostgresSecrets  # noqa: PLC0415 - an extra

    return PostgresSecrets(url)


def keyring(settings: Settings, *, make: bool = False) -> Keyring | None:
    """The keys that there are now; None where none is. ``make``: one, where it would be kept in the data directory.

    Reads the files anew, so that a process sees what another one has replaced. Errors: SecretRefused, SecretUnavailable.
    """
    if make and settings.database_url is None:
        held = own_secrets.obtain(MASTER_KEY, settings.master_key, settings.data)
        current: str | None = held.value
    else:
        current = _found(settings, MASTER_KEY, settings.master_key)
    if current is None:
        return None
    previous = [_found(settings, PREVIOUS_MASTER_KEY, settings.master_key_previous)]
    if settings.master_key is not None:
        previous.append(_found(settings, MASTER_KEY, None))  # what was kept here before the environment said another
    if settings.master_key_previous is not None:
        previous.append(_found(settings, PREVIOUS_MASTER_KEY, None))
    keys = [MasterKey.of(secret) for secret in dict.fromkeys(previous) if secret is not None and secret != current]
    return Keyring(MasterKey.of(current), tuple(keys))


def _found(settings: Settings, secret: OwnSecret, given: str | None) -> str | None:
    if given is None and settings.database_url is not None:
        return None
    held = own_secrets.find(secret, given, settings.data)
    return None if held is None else held.value


def own_values(settings: Settings) -> tuple[str, ...]:
    """The texts of the keys here, for those who take them out of what is told."""
    found = [settings.master_key, settings.master_key_previous]
    for secret in (MASTER_KEY, PREVIOUS_MASTER_KEY):
        with contextlib.suppress(own_secrets.SecretRefused, own_secrets.SecretUnavailable):
            found.append(_found(settings, secret, None))
    return tuple(value for value in found if value is not None)


def open_all(held: SecretsHeld, ring: Keyring | None, known: Vault = NOTHING_SEALED) -> Vault:
    """Open what is held. A value that is known from before stays where its row is under a key that this process lacks.

    So processes that have not been told of a new key go on while another one rotates.
    """
    values: dict[str, str] = {}
    unopened: dict[str, str] = {}
    for secret in held.secrets:
        key = None if ring is None else ring.find(secret.key_id)
        if key is None and secret.name in known.values:
            values[secret.name] = known.values[secret.name]
        elif key is None:
            here = "PENSTOCK_MASTER_KEY is not set" if ring is None else f"the one here is {ring.current.id}"
            unopened[secret.name] = f"it is sealed with the master key {secret.key_id}, and {here}"
        else:
            try:
                values[secret.name] = opened(key, secret.name, secret.version, secret.sealed)
            except NotOpened:
                unopened[secret.name] = "it was changed after it was sealed. Set it anew: penstock secrets set"
    return Vault(values, unopened, held.change)


def at_start(settings: Settings, *, needed: bool) -> Vault:
    """What a server begins with. ``needed``: its routes file names a sealed secret. Makes the master key where it is kept.

    A store that is away is no reason not to serve: the watch reads it when it is back. Errors: SealedRefused.
    """
    ring: Keyring | None = None
    try:
        with contextlib.suppress(own_secrets.SecretUnavailable):  # then nothing else can be written there either
            ring = keyring(settings, make=True)
        held = asyncio.run(_held(settings))
    except (own_secrets.SecretRefused, StoreUnusable) as problem:
        raise SealedRefused(str(problem)) from None
    if ring is None and settings.database_url is not None and (needed or (held is not None and held.secrets)):
        what = "the routes file names sealed secrets" if needed else "its database holds sealed secrets"
        raise SealedRefused(
            f"PENSTOCK_MASTER_KEY is not set, and {what}. Where DATABASE_URL is set the key must be in the environment, the "
            f"same for every instance. Make a good one with {own_secrets.HOW_TO_MAKE_ONE}"
        )
    return NOTHING_SEALED if held is None else open_all(held, ring)


def as_now(settings: Settings) -> Vault:
    """What a command finds that only looks; nothing is made. Errors: SealedRefused, also for a store that is away."""
    if settings.database_url is None and not (settings.data / TRUST_FILE).is_file():
        return NOTHING_SEALED
    try:
        ring = keyring(settings)
        held = asyncio.run(_held(settings))
    except (own_secrets.SecretRefused, own_secrets.SecretUnavailable, StoreUnusable) as problem:
        raise SealedRefused(str(problem)) from None
    if held is None:
        raise SealedRefused("the store of sealed secrets is away")
    return open_all(held, ring)


async def _held(settings: Settings) -> SecretsHeld | None:
    """None: the store is away."""
    opened_store = store(settings)
    try:
        async with asyncio.timeout(READ_S):
            return await opened_store.load()
    except (StoreAway, TimeoutError):
        return None
    finally:
        await opened_store.close()
