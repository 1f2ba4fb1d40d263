"""Sealing a value: AES-256-GCM under a master key, bound to the record that it belongs to.

A master key is a text that somebody chose or that was made once. Both what encrypts and the *key id* are derived from it
by HMAC-SHA256, each under a label of its own, so the id tells keys apart and gives nothing of them away.

Shapes: a sealed value is a nonce of 96 bits, fresh for each, the ciphertext and its tag. What is authenticated beside it is
the label, the key id, the record's name and its version, each ended by a zero byte: a ciphertext that stands in another
row, or stood in the same one before, does not open.

Bounds: random nonces are safe for 2**32 values under one key (NIST SP 800-38D, section 8.3); a store holds some hundred.
Deliberately not handled: hiding how long a value is, and a store that is put back whole to an older state.
Held by `tests/core/test_envelope.py`.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
KEY_ID_CHARS: Final = 12  # 48 bits tell apart the few keys that one installation ever has
_LABEL: Final = b"penstock sealed value, format 1"


class NotOpened(Exception):  # noqa: N818 - it names what happened, for a caller who has words for it
    """The key is another one, or what was sealed, its name or its version has been changed. Nothing is told of which."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """What seals. ``id`` may be told; the key itself is in no representation."""

    id: str
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: str) -> "MasterKey":
        """The key that a master key's text stands for. The text has been checked to be hard to guess."""
        return cls(_derived(secret, b"id").hex()[:KEY_ID_CHARS], _derived(secret, b"key"))


@dataclass(frozen=True, slots=True)
class Keyring:
    """``current`` seals, all open. ``previous``: those that a rotation has not yet replaced everywhere."""

    current: MasterKey
    previous: tuple[MasterKey, ...] = ()

    def find(self, key_id: str) -> MasterKey | None:
        return next((key for key in (self.current, *self.previous) if key.id == key_id), None)


def seal(key: MasterKey, name: str, version: int, value: str) -> bytes:
    """The sealed value for one version of one record."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 30 ms, for those who seal

    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key.key).encrypt(nonce, value.encode(), _identity(key, name, version))


def opened(key: MasterKey, name: str, version: int, sealed: bytes) -> str:
    """The value that was sealed so. Raises `NotOpened`."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise NotOpened
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return AESGCM(key.key).decrypt(nonce, ciphertext, _identity(key, name, version)).decode()
    except (InvalidTag, UnicodeDecodeError):
        raise NotOpened from None


def _identity(key: MasterKey, name: str, version: int) -> bytes:
    return b"\0".join((_LABEL, key.id.encode(), name.encode(), str(version).encode(), b""))


def _derived(secret: str, what: bytes) -> bytes:
    return hmac.digest(secret.encode(), _LABEL + b": " + what, hashlib.sha256)
