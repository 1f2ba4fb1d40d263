"""The books in Redis or Valkey, shared by all workers and instances. The state machine is `budgets.lua`.

All books stand under one hash tag, ``{penstock:budgets}``, because an exchange is reserved in several of them in one atomic
step: on a Cluster they are all on one node. A reservation in four books takes that node less than 0.1 ms.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import uuid4

from proxy.core.budget import KEPT_AFTER_S, AlertLevel, Audit, Book, BudgetLease, Settlement, Standing, money
from proxy.ports import SEEDING_MS, Reservation, Unseeded
from proxy.stores.redis.connection import RedisConnection, Script
from proxy.terms import ExchangeId, NanoUsd

LEASE_MS: Final = 60_000
LEASES_A_CALL: Final = 50  # so that no call keeps the server busy for longer than 2 ms
SETTLEMENTS_A_CALL: Final = 50
_BUDGETS: Final = "budgets.lua"
_Item = TypeVar("_Item")
_STANDING: Final = 4  # values of one standing in a reply


class RedisBudgets:
    """See `proxy.ports.BudgetStore`. ``now_ms`` is for tests: without it leases run by the server's clock."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        lease_ms: int = LEASE_MS,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._connection = connection
        self._lease_ms = lease_ms
        self._tag = f"{{{connection.key('budgets')}}}"
        self._now_ms = now_ms
        self._script = Script.of(__package__, _BUDGETS)

    async def reserve(self, lease: BudgetLease, worker: str) -> Reservation | Unseeded:
        books = [claim.book for claim in lease.claims]
        reply = await self._run(
            "reserve",
            books,
            lease.exchange_id,
            money(lease.amount_nanousd),
            lease.admitted_ms,
            self._lease_ms,
            worker,
            SEEDING_MS,
            *(money(claim.cap_nanousd) for claim in lease.claims),
        )
        if reply[0] == b"unseeded":
            missing = [(books[int(index) - 1], mine == 1) for index, mine in _in_groups(reply[1:], 2)]
            return Unseeded(
                tuple(book for book, mine in missing if mine), tuple(book for book, mine in missing if not mine)
            )
        standings = tuple(_standing(values) for values in _in_groups(reply[2:], _STANDING))
        return Reservation(standings, int(reply[1]) - 1 if reply[1] else None)

    async def renew(self, leases: Sequence[BudgetLease]) -> frozenset[Book]:
        missing: set[Book] = set()
        for batch in _batches(leases, LEASES_A_CALL):
            books = [claim.book for lease in batch for claim in lease.claims]
            args: list[str | int] = [self._lease_ms]
            for lease in batch:
                args += [lease.exchange_id, money(lease.amount_nanousd), lease.admitted_ms, len(lease.claims)]
                args += [money(claim.cap_nanousd) for claim in lease.claims]
            reply = await self._run("renew", books, *args)
            missing.update(books[int(index) - 1] for index in reply)
        return frozenset(missing)

    async def settle(self, settlements: Sequence[Settlement]) -> Mapping[Book, Standing]:
        standings: dict[Book, Standing] = {}
        for batch in _batches(settlements, SETTLEMENTS_A_CALL):
            args: list[str | int] = []
            for one in batch:
                args += [one.exchange_id, money(one.actual_nanousd), len(one.books)]
            standings |= await self._standings("settle", [book for one in batch for book in one.books], *args)
        return standings

    async def seed(self, book: Book, spent: NanoUsd, mark_ms: int) -> Standing:
        # What is left of the window by the worker's clock would do for the server's too; a day is added to it.
        kept_ms = (book.window.resets_at - book.window.starts_at + KEPT_AFTER_S) * 1000
        reply = await self._run("seed", [book], money(spent), mark_ms, uuid4().hex, kept_ms)
        return _standing(reply)

    async def look(self, books: Sequence[Book]) -> Mapping[Book, Standing]:
        return await self._standings("look", books)

    async def audit(self, book: Book, apart_ms: int) -> Audit | None:
        reply = await self._run("audit", [book], apart_ms)
        if reply is None:
            return None
        spent, mark_ms, number, *open_ids = reply
        return Audit(
            NanoUsd(int(spent)), int(mark_ms), int(number), tuple(ExchangeId(one.decode()) for one in open_ids)
        )

    async def repair(self, book: Book, number: int, missing: NanoUsd, mark_ms: int) -> bool:
        return bool(await self._run("repair", [book], number, money(missing), mark_ms))

    async def alert(self, book: Book, level: AlertLevel, worker: str) -> bool:
        return bool(await self._run("alert", [book], int(level), worker))

    async def _run(self, operation: str, books: Iterable[Book], *args: str | int) -> Any:
        keys = [f"{self._tag}:seeding"]
        for book in books:
            state = f"{self._tag}:{book.subject}|{book.window.id}"
            keys += (state, f"{state}|leases")
        now_ms = "" if self._now_ms is None else self._now_ms()
        return await self._connection.run(self._script, keys, (operation, now_ms, *args))

    async def _standings(self, operation: str, books: Sequence[Book], *args: str | int) -> dict[Book, Standing]:
        reply = await self._run(operation, books, *args)
        return {books[int(index) - 1]: _standing(values) for index, *values in _in_groups(reply, 1 + _STANDING)}


def _standing(values: Sequence[bytes]) -> Standing:
    spent, held, epoch, alerted = values
    return Standing(NanoUsd(int(spent)), NanoUsd(int(held)), epoch.decode(), AlertLevel(int(alerted)))


def _in_groups(reply: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (reply[start : start + size] for start in range(0, len(reply), size))


def _batches(items: Sequence[_Item], size: int) -> Iterable[Sequence[_Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
