"""Which audit log the settings name; what the process itself writes there; and whether a log is as it was written."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from proxy.core import audit
from proxy.core.audit import PENSTOCK, Flaw, Noted, Verifier
from proxy.ports import AuditLog, ExchangeLog, StoreAway, StoreUnusable
from proxy.server.databases import TRUST_FILE, postgres_url
from proxy.server.settings import Settings

BATCH: Final = 1000
AGAIN_S: Final = 5.0  # between tries to say that the process has started, while the store is away
LAST_WORD_S: Final = 2.0

_Result = TypeVar("_Result")


def audit_log(settings: Settings, *, read_only: bool = False) -> AuditLog:
    """The audit log, not yet opened. Raises `StoreUnusable` as `postgres_url` does."""
    url = postgres_url(settings)
    if url is None:
        from proxy.stores.sqlite.audit import SqliteAudit  # noqa: PLC0415 - only what is used

        return SqliteAudit(settings.data / TRUST_FILE, read_only=read_only)
    from proxy.stores.postgres.audit import PostgresAudit  # noqa: PLC0415 - an extra

    return PostgresAudit(url, read_only=read_only)


async def verified(
    log: AuditLog, noted: Noted | None = None, told: Callable[[int], None] = lambda _: None
) -> tuple[audit.AuditHead, tuple[Flaw, ...]]:
    """Read a whole log; its head as it was at the beginning, and what is wrong. ``told``: how many entries were read.

    Raises as the port does.
    """
    head = await log.head()
    verifier = Verifier(head, noted)
    while verifier.number < head.number and (entries := await log.read(verifier.number, BATCH)):
        verifier.feed(entries)
        told(len(entries))
    flaws = verifier.end()
    behind = await log.read(head.number, 1)
    if behind and behind[0].number > (await log.head()).number:  # read later, so what is added meanwhile is none
        flaws += (Flaw(behind[0].number, "behind the end that the store's head names"),)
    return head, flaws


class CommandRecord:
    """Writes what a command does to a store by itself, beside the server: before it is done, and again when it is over.

    ``user``: of the machine, who runs it.
    """

    def __init__(self, audit_log: AuditLog, user: str, wall: Callable[[], float]) -> None:
        self._audit = audit_log
        self._actor = f"{audit.COMMAND}:{user}"
        self._wall = wall

    async def done(self, what: str, subject: str, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Raises as the port does, and nothing is done then; and whatever ``work`` raises."""
        await self._audit.open()
        begun = await self._audit.append(self._act(what, subject, "begun", None))
        outcome: audit.Outcome = "failed"
        try:
            result = await work()
            outcome = "done"
        finally:
            with contextlib.suppress(StoreAway, StoreUnusable):  # an entry `begun` alone: nobody knows how it ended
                await self._audit.append(self._act(what, subject, outcome, begun.number))
        return result

    def _act(self, what: str, subject: str, outcome: audit.Outcome, begun: int | None) -> audit.Act:
        at_us = int(self._wall() * 1_000_000)
        return audit.act(at_us, self._actor, what, outcome, role="admin", subject=subject, begun=begun)


class LifeRecord:
    """Writes that the process has started and stopped. Serving does not wait for it: the start is written when it can be."""

    def __init__(self, audit_log: AuditLog, log: ExchangeLog, wall: Callable[[], float]) -> None:
        self._audit = audit_log
        self._log = log
        self._wall = wall
        self._starting: asyncio.Task[None] | None = None

    def started(self, facts: Mapping[str, Any]) -> None:
        self._starting = asyncio.create_task(self._until_written(self._act("started", facts)))

    async def stopped(self) -> None:
        """Never raises; takes `LAST_WORD_S` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                if self._starting is not None:
                    await self._starting
                await self._written(self._act("stopped", {}))
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)

    async def _until_written(self, act: audit.Act) -> None:
        while True:
            if await self._written(act):
                return
            await asyncio.sleep(AGAIN_S)

    async def _written(self, act: audit.Act) -> bool:
        try:
            await self._audit.append(act)
        except (StoreAway, StoreUnusable) as error:
            self._log.event("audit: an entry could not be written", act=act.act, error=str(error))
            return False
        return True

    def _act(self, what: str, facts: Mapping[str, Any]) -> audit.Act:
        return audit.act(int(self._wall() * 1_000_000), PENSTOCK, what, "noted", changes=facts)
