"""Sealing under a new master key: what a command does beside running servers, and goes on with if it was killed.

Every secret is its own step: opened with the key that it names, sealed with the current one, and put in its place unless
somebody changed the store meanwhile; then it is looked at anew. What is left to do is what the store itself says, so
nothing is forgotten and nothing done twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.core.envelope import Keyring, NotOpened, opened, seal
from proxy.ports import SealedSecret, SecretStore, StoreAway
from proxy.server import own_secrets
from proxy.server.own_secrets import MASTER_KEY, PREVIOUS_MASTER_KEY
from proxy.server.settings import Settings

TRIES_MAX: Final = 100  # each is lost to somebody who changed another secret in the same millisecond


@dataclass(frozen=True, slots=True)
class Rotated:
    """How the store stands. ``left``: names of the secrets that are not sealed with the current key."""

    key_id: str
    resealed: int
    secrets: int
    left: tuple[str, ...]


async def put(store: SecretStore, ring: Keyring, name: str, value: str, created_us: int) -> None:
    """Seal a value under a name, whatever else is changed meanwhile. Errors: as the store's."""
    for _ in range(TRIES_MAX):
        version = await store.change() + 1
        sealed = seal(ring.current, name, version, value)
        if await store.put(SealedSecret(name, version, ring.current.id, sealed, created_us)):
            return
    raise StoreAway("others change the sealed secrets without a pause; nothing was sealed. Try again")


def begin(settings: Settings) -> None:
    """Make the new master key, where it is kept in the data directory and nobody put another one there by hand.

    Errors: SecretRefused, SecretUnavailable.
    """
    if settings.master_key is not None or settings.master_key_previous is not None or settings.database_url is not None:
        return
    if own_secrets.find(MASTER_KEY, None, settings.data) is not None:
        own_secrets.replace(MASTER_KEY, PREVIOUS_MASTER_KEY, settings.data)


async def reseal(store: SecretStore, ring: Keyring, step: Callable[[], None]) -> Rotated:
    """Seal anew what another key has sealed. ``step`` is called after each. Errors: as the store's; what is done is done."""
    resealed = 0
    unopened: set[str] = set()
    for _ in range(TRIES_MAX):
        held = await store.load()
        to_do = [one for one in held.secrets if one.key_id != ring.current.id and one.name not in unopened]
        if not to_do:
            break
        version = held.change
        for secret in to_do:
            anew = _anew(ring, secret, version + 1)
            if anew is None:
                unopened.add(secret.name)
                continue
            if not await store.put(anew):
                break  # somebody was quicker: perhaps with this very secret
            version += 1
            resealed += 1
            step()
    held = await store.load()
    left = tuple(secret.name for secret in held.secrets if secret.key_id != ring.current.id)
    return Rotated(ring.current.id, resealed, len(held.secrets), left)


def finish(settings: Settings) -> None:
    """Nothing is sealed with the key before any more: remove its file. Errors: SecretUnavailable."""
    if settings.database_url is None and settings.master_key is None:
        own_secrets.forget(PREVIOUS_MASTER_KEY, settings.data)


def _anew(ring: Keyring, secret: SealedSecret, version: int) -> SealedSecret | None:
    """The same value under the current key; None where no key here opens it."""
    key = ring.find(secret.key_id)
    if key is None:
        return None
    try:
        value = opened(key, secret.name, secret.version, secret.sealed)
    except NotOpened:
        return None
    sealed = seal(ring.current, secret.name, version, value)
    return SealedSecret(secret.name, version, ring.current.id, sealed, secret.created_us)
