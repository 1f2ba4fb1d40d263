"""The breakers' store within one process: what every other one must be like."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.core.breaker import Subject
from proxy.ports import NOTHING_STORED, Change, Lease, Stored

RECORDS_MAX: Final = 4096  # clients can choose names; a process keeps fewer


@dataclass(frozen=True, slots=True)
class _Held:
    stored: Stored
    gone_at: float


@dataclass(frozen=True, slots=True)
class _Holder:
    owner: str
    until: float


class MemoryBreakers:
    """Shapes: ``now`` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float], *, records_max: int = RECORDS_MAX) -> None:
        self._now = now
        self._records_max = records_max
        self._held: dict[Subject, _Held] = {}
        self._holders: dict[Subject, _Holder] = {}
        self._listeners: list[Callable[[Change | None], None]] = []

    async def load(self) -> Mapping[Subject, Stored]:
        self._drop_gone()
        return {subject: held.stored for subject, held in self._held.items()}

    async def swap(self, subject: Subject, expected: int, data: bytes, keep_s: float) -> Stored | None:
        found = self._stored(subject)
        if found.version != expected:
            return found
        if subject not in self._held:
            self._make_room()
        stored = Stored(expected + 1, data)
        self._held[subject] = _Held(stored, self._now() + keep_s)
        for told in tuple(self._listeners):
            told(Change(subject, stored))
        return None

    async def lease(self, subject: Subject, owner: str, hold_s: float) -> Lease:
        now = self._now()
        holder = self._holders.get(subject)
        if holder is not None and holder.owner != owner and holder.until > now:
            return Lease(holder.until - now, self._stored(subject))
        self._holders = {each: held for each, held in self._holders.items() if held.until > now}
        self._holders[subject] = _Holder(owner, now + hold_s)
        return Lease(0.0, self._stored(subject))

    async def unlease(self, subject: Subject, owner: str) -> None:
        holder = self._holders.get(subject)
        if holder is not None and holder.owner == owner:
            del self._holders[subject]

    async def listen(self, told: Callable[[Change | None], None]) -> None:
        self._listeners.append(told)
        try:
            told(None)
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._listeners.remove(told)

    def _stored(self, subject: Subject) -> Stored:
        held = self._held.get(subject)
        return held.stored if held is not None and held.gone_at > self._now() else NOTHING_STORED

    def _drop_gone(self) -> None:
        now = self._now()
        self._held = {subject: held for subject, held in self._held.items() if held.gone_at > now}

    def _make_room(self) -> None:
        if len(self._held) < self._records_max:
            return
        self._drop_gone()
        while len(self._held) >= self._records_max:
            del self._held[min(self._held, key=lambda subject: self._held[subject].gone_at)]
