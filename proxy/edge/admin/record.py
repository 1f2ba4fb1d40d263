"""What the door writes to the audit log: every act before it is carried out and again when it is over.

An act that cannot be written down first is refused with 503 and not done. What is written afterwards, and what merely
happened (a wrong key, the first use of a right one), changes nothing any more: where it cannot be written, the process's log
says so.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.core import audit
from proxy.core.audit import Act, Outcome
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.edge.admin.endpoint import Endpoint
from proxy.ports import AuditLog, ExchangeLog, StoreAway, StoreUnusable
from proxy.terms import AccountId, ExchangeId, Role

WRITE_S: Final = 5.0  # a command gives up after ten, and an act has two entries
AGAIN_S: Final = 5.0
WINDOW_S: Final = 3600.0  # in which one use of a key from one address is told once
WINDOWS_MAX: Final = 4096
WAITING_MAX: Final = 64  # entries of what merely happened; more are in the process's log alone
NOBODY_MAX: Final = 64  # of those without a right key, in a window: they choose how many addresses they have
CLOSE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Who:
    """Who does something, as the audit log has it. ``account``: whose key it is, where it is bound to one."""

    actor: str
    role: Role
    account: AccountId | None
    peer: str
    request_id: ExchangeId


class Record:
    """``wall``: Unix seconds."""

    def __init__(self, log: AuditLog, wall: Callable[[], float]) -> None:
        self._audit = log
        self._wall = wall
        self._told: dict[tuple[str, str, str], float] = {}  # in the order in which they were told
        self._waiting: set[asyncio.Task[None]] = set()

    async def begin(self, who: Who, endpoint: Endpoint, steps: Mapping[str, str], body: Mapping[str, Any]) -> Act:
        """Write that something is about to be done; what comes back is for `end`. Raises `Rejected`: do nothing then."""
        changes = audit.told(body, endpoint.recorded)
        act = self._act(who, _name(endpoint), "begun", subject="/".join(steps.values()), changes=changes)
        try:
            async with asyncio.timeout(WRITE_S):
                entry = await self._audit.append(act)
        except (StoreAway, TimeoutError) as away:
            raise _unwritten(str(away) or f"no answer within {WRITE_S:.0f} s", AGAIN_S) from None
        except StoreUnusable as unusable:
            raise _unwritten(str(unusable), None) from None
        return replace(act, begun=entry.number)

    async def end(self, begun: Act, outcome: Outcome, changes: Mapping[str, Any], log: ExchangeLog) -> None:
        """Write how it ended. Never raises for a store."""
        act = audit.act(
            int(self._wall() * 1_000_000),
            begun.actor,
            begun.act,
            outcome,
            role=begun.role,
            subject=begun.subject,
            changes=changes,
            request_id=begun.request_id,
            peer=begun.peer,
            account=begun.account,
            begun=begun.begun,
        )
        await self._write(act, log)

    async def refuse(
        self, who: Who, endpoint: Endpoint, steps: Mapping[str, str], failure: Failure, log: ExchangeLog
    ) -> None:
        """Write that something was asked for and not let through. Never raises for a store."""
        changes, subject = {"code": failure.row.code}, "/".join(steps.values())
        await self._write(self._act(who, _name(endpoint), "refused", subject=subject, changes=changes), log)

    def note(self, who: Who, what: str, log: ExchangeLog) -> None:
        """Write that something happened, once in a window for each actor and address; nobody waits for it."""
        now = self._wall()
        told = (who.actor, what, who.peer)
        if now - self._told.get(told, -WINDOW_S) < WINDOW_S or len(self._waiting) >= WAITING_MAX:
            return
        self._forget_old(now)
        if who.actor == audit.NOBODY and sum(actor == who.actor for actor, _, _ in self._told) >= NOBODY_MAX:
            return
        self._told.pop(told, None)
        if len(self._told) >= WINDOWS_MAX:
            del self._told[next(iter(self._told))]
        self._told[told] = now
        task = asyncio.create_task(self._write(self._act(who, what, "noted"), log))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        """What waits is written, as far as the store is there."""
        if self._waiting:
            _, late = await asyncio.wait(self._waiting, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _forget_old(self, now: float) -> None:
        while self._told and now - next(iter(self._told.values())) >= WINDOW_S:
            del self._told[next(iter(self._told))]

    async def _write(self, act: Act, log: ExchangeLog) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await self._audit.append(act)
        except (StoreAway, StoreUnusable, TimeoutError) as error:
            why = str(error) or "no answer"
            log.event("audit: an entry could not be written", act=act.act, outcome=act.outcome, error=why)

    def _act(
        self, who: Who, what: str, outcome: Outcome, *, subject: str = "", changes: Mapping[str, Any] | None = None
    ) -> Act:
        return audit.act(
            int(self._wall() * 1_000_000),
            who.actor,
            what,
            outcome,
            role="" if who.actor == audit.NOBODY else who.role.name.lower(),
            subject=subject,
            changes=changes,
            request_id=who.request_id,
            peer=who.peer,
            account=who.account,
        )


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def _unwritten(why: str, again_s: float | None) -> Rejected:
    message = (
        f"The audit log cannot be written now, and nothing is done here that is not written down first: {why.rstrip('.')}. "
        "Requests to /v1 go on."
    )
    return Rejected(Failure(FailureKind.STORE_UNAVAILABLE, message, retry_after_s=again_s))
