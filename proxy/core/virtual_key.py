"""A virtual key's form, and what is kept of it.

Shapes: ``psk-`` + id (12) + secret (43) + checksum (8), letters and digits alone, so that a double click takes all that
follows the prefix. The secret is 256 random bits. The checksum (CRC-32 of id and secret) tells a mistyped or
cut key from a wrong one without asking anybody; it protects nothing.

Of the secret only an HMAC-SHA256 under the *pepper* is kept, bound to the id. A pepper goes by its `kid`, which is made of
it: a hash says which pepper it needs, and who has the hashes alone can try no secret.

`holds` does the same work for a key that is known, for one that is not, and for a wrong secret, so that the time of a
refusal tells nobody which ids there are. Held by `tests/core/test_virtual_key.py` and `tests/phases/test_key_timing.py`.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.terms import VirtualKeyId

PREFIX: Final = "psk-"
SECRET_BYTES: Final = 32
ID_CHARS: Final = 12  # 71 bits
SECRET_CHARS: Final = 43  # what 256 bits need in base 62
CHECK_CHARS: Final = 8  # 32 bits, in hexadecimal
KEY_CHARS: Final = len(PREFIX) + ID_CHARS + SECRET_CHARS + CHECK_CHARS
LAST_CHARS: Final = 4  # shown in listings

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(
    rf"psk-([0-9A-Za-z]{{{ID_CHARS}}})([0-9A-Za-z]{{{SECRET_CHARS}}})([0-9A-Za-z]{{{CHECK_CHARS}}})"
)
_ID: Final = re.compile(rf"[0-9A-Za-z]{{{ID_CHARS}}}")
_CONTEXT: Final = b"penstock virtual key 1\0"
_KID_CONTEXT: Final = b"penstock pepper id 1"


class Malformed(Enum):
    """Why something is no virtual key of ours, whoever keeps the keys."""

    FORM = "form"
    CHECKSUM = "checksum"


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed key, of which nothing else is known."""

    id: VirtualKeyId
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SecretHash:
    """What is kept of a secret. ``kid``: under which pepper."""

    kid: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Made:
    """A new key, whole, for the one moment in which it is shown."""

    id: VirtualKeyId
    text: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def last(self) -> str:
        return self.text[-LAST_CHARS:]


@dataclass(frozen=True, slots=True)
class Pepper:
    kid: str
    value: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str) -> "Pepper":
        value = text.encode()
        return cls(hmac.digest(value, _KID_CONTEXT, "sha256")[:6].hex(), value)

    def hash_of(self, key_id: VirtualKeyId, secret: str) -> SecretHash:
        return SecretHash(self.kid, self.digest(key_id, secret))

    def digest(self, key_id: VirtualKeyId, secret: str) -> bytes:
        return hmac.digest(self.value, _CONTEXT + key_id.encode() + b"\0" + secret.encode(), "sha256")


@dataclass(frozen=True, slots=True)
class Peppers:
    """What hashes are made under, and what older ones may still be under. ``previous`` None: nothing else."""

    current: Pepper
    previous: Pepper | None = None

    def knows(self, kid: str) -> bool:
        return kid == self.current.kid or (self.previous is not None and kid == self.previous.kid)

    def holds(self, presented: Presented, kept: SecretHash, kept_too: SecretHash) -> tuple[bool, bool]:
        """Whether the secret is that of each hash. One HMAC a pepper and two comparisons, whatever is presented and kept."""
        digests = {self.current.kid: self.current.digest(presented.id, presented.secret)}
        if self.previous is not None:
            digests[self.previous.kid] = self.previous.digest(presented.id, presented.secret)
        first, second = digests.get(kept.kid), digests.get(kept_too.kid)
        return (
            hmac.compare_digest(first or b"\0" * 32, kept.digest) and first is not None,
            hmac.compare_digest(second or b"\0" * 32, kept_too.digest) and second is not None,
        )

    def nobodys(self) -> SecretHash:
        """A hash that no secret has: what an unknown id is compared with."""
        return SecretHash(self.current.kid, hashlib.sha256(secrets.token_bytes(SECRET_BYTES)).digest())


def make(key_id: VirtualKeyId | None = None, random: Callable[[int], bytes] = secrets.token_bytes) -> Made:
    """A new key; of a given id, where only its secret is to be a new one."""
    known = key_id or VirtualKeyId(_base62(int.from_bytes(random(SECRET_BYTES)) % 62**ID_CHARS, ID_CHARS))
    secret = _base62(int.from_bytes(random(SECRET_BYTES)), SECRET_CHARS)
    return Made(known, f"{PREFIX}{known}{secret}{_check(known + secret)}", secret)


def parse(text: str) -> Presented | Malformed:
    """What a text says as a virtual key. Looks nothing up."""
    match = _FORM.fullmatch(text) if len(text) == KEY_CHARS else None
    if match is None:
        return Malformed.FORM
    key_id, secret, check = match.groups()
    if _check(key_id + secret) != check:
        return Malformed.CHECKSUM
    return Presented(VirtualKeyId(key_id), secret)


def id_from(text: str) -> VirtualKeyId | None:
    """An id as people write it: alone, or as listings show it, with the prefix. None where it is none."""
    bare = text.removeprefix(PREFIX)
    return VirtualKeyId(bare) if _ID.fullmatch(bare) else None


def _check(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _base62(number: int, chars: int) -> str:
    digits = []
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    assert number == 0, "it has more digits"  # noqa: S101 - a programming error
    return "".join(reversed(digits))
