"""What subjects have taken of their limits in Redis or Valkey, shared by all workers. The state machine is `limits.lua`.

All subjects stand under one hash tag, ``{penstock:limits}``, because an exchange takes of several in one atomic step: on a
Cluster they are all on one node.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from proxy.core.limiting import (
    LimitClaim,
    Limited,
    LimitId,
    LimitLease,
    LimitLeaseId,
    LimitSettlement,
    LimitStanding,
    Taken,
)
from proxy.stores.redis.connection import RedisConnection, Script

LEASE_MS: Final = 60_000
LEASES_A_CALL: Final = 50  # so that no call keeps the server busy for longer than a millisecond
SETTLEMENTS_A_CALL: Final = 50
_LIMITS: Final = "limits.lua"
_NONE: Final = -1
_HEAD: Final = 3  # values of a reply before the standings


class RedisLimits:
    """See `proxy.ports.LimitStore`. ``now_ms`` is for tests: without it everything runs by the server's clock."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        lease_ms: int = LEASE_MS,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._connection = connection
        self._lease_ms = lease_ms
        self._tag = f"{{{connection.key('limits')}}}"
        self._now_ms = now_ms
        self._script = Script.of(__package__, _LIMITS)

    async def take(self, lease: LimitLease) -> Taken:
        numbers = [number for claim in lease.claims for number in _numbers(claim)]
        reply = await self._run("take", (one.subject for one in lease.claims), lease.id, lease.tokens, *numbers)
        refused, limited, wait_ms = reply[:_HEAD]
        standings = _standings(reply[_HEAD:])
        if not refused:
            return Taken(standings)
        return Taken(standings, refused - 1, Limited(limited.decode()), None if wait_ms == _NONE else wait_ms)

    async def renew(self, leases: Sequence[LimitLease], worker: str) -> int:
        workers = 0
        for start in range(0, max(1, len(leases)), LEASES_A_CALL):
            subjects: list[LimitId] = []
            args: list[LimitLeaseId | int] = []
            for lease in leases[start : start + LEASES_A_CALL]:
                held = [claim.subject for claim in lease.claims if claim.is_leased]
                subjects += held
                args += [lease.id, len(held)]
            workers = await self._run("renew", subjects, worker, *args)
        return workers

    async def settle(self, settlements: Sequence[LimitSettlement]) -> None:
        for start in range(0, len(settlements), SETTLEMENTS_A_CALL):
            subjects: list[LimitId] = []
            args: list[LimitLeaseId | int] = []
            for one in settlements[start : start + SETTLEMENTS_A_CALL]:
                for claim in one.claims:
                    if claim.is_leased:
                        subjects.append(claim.subject)
                        args += [one.id, one.change, *_numbers(claim)[2:4]]
            await self._run("settle", subjects, *args)

    async def look(self, claims: Sequence[LimitClaim]) -> Sequence[LimitStanding]:
        numbers = [number for claim in claims for number in _numbers(claim)]
        return _standings(await self._run("look", (claim.subject for claim in claims), *numbers))

    async def reset(self, subject: LimitId) -> bool:
        return bool(await self._run("reset", [subject]))

    async def _run(self, operation: str, subjects: Iterable[LimitId], *args: str | int) -> Any:
        keys = [f"{self._tag}:workers"]
        for subject in subjects:
            state = f"{self._tag}:{subject}"
            keys += (state, f"{state}|leases")
        now_ms = "" if self._now_ms is None else self._now_ms()
        return await self._connection.run(self._script, keys, (operation, now_ms, self._lease_ms, *args))


def _numbers(claim: LimitClaim) -> tuple[int, int, int, int, int]:
    requests, tokens = claim.requests, claim.tokens
    return (
        *((_NONE, _NONE) if requests is None else (requests.size, requests.per_ms)),
        *((_NONE, _NONE) if tokens is None else (tokens.size, tokens.per_ms)),
        _NONE if claim.slots is None else claim.slots,
    )


def _standings(reply: Sequence[int]) -> tuple[LimitStanding, ...]:
    return tuple(LimitStanding(*reply[start : start + 3]) for start in range(0, len(reply), 3))
