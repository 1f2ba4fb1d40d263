"""The breakers' store in Redis: one hash for all records, one key a lease, one channel for changes.

All keys share one hash tag, so that a script's keys are always on one node. The hash is read whole, and `load` is one round
trip whatever else the server holds. Fields of a hash do not expire on every server, so each begins with its own end.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from proxy.core.breaker import Subject
from proxy.ports import NOTHING_STORED, Change, Lease, Stored
from proxy.stores.redis.connection import RedisConnection, Script

RECORDS_MAX: Final = 1024  # clients can choose names; so many are still loaded within the deadline of an operation
KEPT_MS_MAX: Final = 24 * 3600 * 1000  # nothing stays for longer after the last change, not even by a mistake

_LOAD: Final = "breakers_load.lua"
_SWAP: Final = "breakers_swap.lua"
_LEASE: Final = "breakers_lease.lua"
_UNLEASE: Final = "unlease.lua"


class RedisBreakers:
    """On a connection that others use too."""

    def __init__(self, connection: RedisConnection, *, records_max: int = RECORDS_MAX) -> None:
        self._connection = connection
        self._records_max = records_max
        self._records = connection.key("{breakers}:records")
        # Channels are one space for all databases of a server, unlike keys.
        self._channel = connection.key(f"{{breakers}}:changes:{connection.database}")
        self._load, self._swap, self._lease, self._unlease = (
            Script.of(__package__, name) for name in (_LOAD, _SWAP, _LEASE, _UNLEASE)
        )

    async def load(self) -> Mapping[Subject, Stored]:
        return _loaded(await self._connection.run(self._load, [self._records], []))

    async def swap(self, subject: Subject, expected: int, data: bytes, keep_s: float) -> Stored | None:
        keep_ms = min(max(round(keep_s * 1000), 1), KEPT_MS_MAX)
        change = orjson.dumps([subject, expected + 1, data.decode("latin-1")])
        found = await self._connection.run(
            self._swap,
            [self._records],
            [subject, expected, data, keep_ms, KEPT_MS_MAX, self._records_max, self._channel, change],
        )
        return None if not found else _stored(found)

    async def lease(self, subject: Subject, owner: str, hold_s: float) -> Lease:
        wait_ms, *found = await self._connection.run(
            self._lease, [self._lease_key(subject), self._records], [owner, max(round(hold_s * 1000), 1), subject]
        )
        return Lease(wait_ms / 1000, _stored(found))

    async def unlease(self, subject: Subject, owner: str) -> None:
        await self._connection.run(self._unlease, [self._lease_key(subject)], [owner])

    async def listen(self, told: Callable[[Change | None], None]) -> None:
        def heard(message: bytes | None) -> None:
            told(None if message is None else _change(message))

        await self._connection.listen(self._channel, heard)

    def _lease_key(self, subject: Subject) -> str:
        return self._connection.key(f"{{breakers}}:lease:{subject}")


def _loaded(packed: bytes) -> dict[Subject, Stored]:
    """Shapes: of each record "<subject's bytes> <version> <data's bytes>", a line feed, the subject, the data."""
    found: dict[Subject, Stored] = {}
    at = 0
    while at < len(packed):
        end = packed.index(b"\n", at)
        subject_bytes, version, data_bytes = map(int, packed[at:end].split())
        at = end + 1 + subject_bytes
        subject = Subject(packed[end + 1 : at].decode(errors="replace"))
        found[subject] = Stored(version, packed[at : at + data_bytes])
        at += data_bytes
    return found


def _stored(found: list[Any]) -> Stored:
    version, data = found
    return Stored(version, data) if version else NOTHING_STORED


def _change(message: bytes) -> Change | None:
    """What a message says; None, so that all is loaded, where it is not one of ours."""
    try:
        subject, version, data = orjson.loads(message)
        return Change(Subject(str(subject)), Stored(int(version), data.encode("latin-1")))
    except (ValueError, TypeError, AttributeError):
        return None
