"""The outbox: settled rows on their way from the journal to the ledger.

A settlement is in the journal before `book` returns; the outbox takes it from there, a batch at a time, writes it to the
ledger and confirms it to the journal. So there is one way for rows whether the store is there, away for an hour, or the
process that settled them dead: the journal is the spool. The latest rows it has at hand; a longer queue, which comes of a
store that is away, is read back. Reading is a task of the loop,
with files in a thread of its own; nothing that an exchange waits for is in here but `intend` and `book`, two writes to a
file in the page cache.

While the ledger is away the same batch is tried again, backed off to 5 s. A second task looks for the journals of dead
processes (`estate`), at start and every 2 s, and delivers them the same way.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from proxy.core.backoff import BackoffPolicy, delay
from proxy.core.event import EventKind
from proxy.core.ledger import Intent, LedgerRow
from proxy.ports import BooksState, EventSink, ExchangeLog, Ledger, StoreAway, StoreUnusable
from proxy.server.estate import Estate, Foreign, claim
from proxy.server.journal import Journal

BATCH_ROWS: Final = 500  # more than come in BATCH_S, mostly: a row among 500 costs half of what it does among 100
BATCH_S: Final = 0.25
BATCH_S_MAX: Final = 5.0  # a row is to be in the ledger within 5 s
ENTRY_BYTES: Final = 1280  # of a settlement and its intent, generously: how much of the journal makes a batch
SCAN_S: Final = 2.0
PROBE_S: Final = 1.0
WRITE_S: Final = 30.0  # a store that takes longer is away
REPLAY_S: Final = 5.0
RESTART_S: Final = 1.0  # after a bug
BACKOFF: Final = BackoffPolicy(first_s=0.1, factor=2.0, max_s=5.0, jitter=0.25)

_Result = TypeVar("_Result")


class Outbox:
    """The port `Books`. Made and used in one loop. `start` before the first request, `close` after the last."""

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        log: ExchangeLog,
        *,
        batch_rows: int = BATCH_ROWS,
        batch_s: float = BATCH_S,
        scan_s: float = SCAN_S,
        backoff: BackoffPolicy = BACKOFF,
        now: Callable[[], float] = time.monotonic,
        events: EventSink | None = None,
    ) -> None:
        self._events = events
        self._journal = journal
        self._ledger = ledger
        self._log = log
        self._batch_rows = batch_rows
        self._batch_s = min(batch_s, BATCH_S_MAX)
        self._scan_s = scan_s
        self._backoff = backoff
        self._now = now
        self._rng = random.Random()  # noqa: S311 - it spreads retries
        self._files = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told = asyncio.Event()  # whether what dead processes left is delivered, or cannot be now
        self._replayed = False
        self._away_since: float | None = None
        self._error: str | None = None
        self._unreadable: str | None = None  # somebody took our files away, or the disk is ill
        self._foreign: set[Path] = set()
        self._delivered = self._inherited = self._interrupted = self._damaged = 0

    async def start(self, replay_s: float = REPLAY_S) -> bool:
        """Deliver what dead processes left; whether that is done. The rest goes on in the background.

        False: the ledger is away, or there is very much. What was spent is then not yet all in the ledger.
        """
        for work in (self._deliver, self._inherit):
            self._begin(work)
        try:
            async with asyncio.timeout(replay_s):
                await self._told.wait()
        except TimeoutError:
            return False
        return self._replayed

    @property
    def trouble(self) -> str | None:
        """Why readiness must fail and new requests be refused (503); None where they may come."""
        return self._journal.trouble or self._unreadable

    def intend(self, intent: Intent) -> bool:
        """Before an attempt is sent. False: it could not be written down, so it must not be sent (503)."""
        return self._journal.intend(intent)

    def book(self, row: LedgerRow) -> None:
        """An exchange is over. Synchronous, never fails; when it returns, `kill -9` loses the row no more."""
        self._journal.settle(row)
        if self._timer is None and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(self._batch_s, self._due.set)
        if self._journal.waiting >= self._batch_rows:
            self._due.set()

    def state(self) -> BooksState:
        journal = self._journal
        trouble = self.trouble
        return BooksState(
            state="refusing" if trouble is not None else "ok" if self._away_since is None else "behind",
            trouble=trouble,
            error=self._error,
            away_s=None if self._away_since is None else round(self._now() - self._away_since, 3),
            waiting_rows=journal.waiting,
            spool_bytes=journal.spool_bytes,
            delivered=self._delivered,
            inherited=self._inherited,
            interrupted=self._interrupted,
            damaged=self._damaged,
            lost=journal.lost,
        )

    async def close(self, patience_s: float = 5.0) -> None:
        """Deliver what waits, within the time; what is left stays in the journal for the next start."""
        self._closing = True
        self._due.set()
        if self._timer is not None:
            self._timer.cancel()
        deliver = self._tasks.get(self._deliver.__name__)
        if deliver is not None:
            await asyncio.wait([deliver], timeout=patience_s)
            for task in self._tasks.values():
                task.cancel()
            await asyncio.wait(self._tasks.values())
        self._files.shutdown(wait=True)
        self._journal.close()

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._closing:
            return

        def ended(task: asyncio.Task[None]) -> None:
            """A bug is told, and the work begun again: the rows are all still in the journal."""
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.bug("outbox", error)
                self._due.set()
                task.get_loop().call_later(RESTART_S, self._begin, work)

        self._tasks[work.__name__] = task = asyncio.create_task(work())
        task.add_done_callback(ended)

    async def _deliver(self) -> None:
        while not (self._closing and not self._journal.waiting):
            await self._wait_until_due()
            upto = self._journal.settled
            while self._journal.waiting and (self._journal.confirmed < upto or self._closing):
                if self._journal.waiting < self._batch_rows and self._timer is not None and not self._closing:
                    break  # what has come since is for the next time: a batch of few rows costs as much as one of many
                self._journal.probe()
                await self._deliver_batch()

    async def _wait_until_due(self) -> None:
        while not self._due.is_set():
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._due.wait()
            except TimeoutError:
                self._journal.probe()  # nothing may come that would show that the disk is well again
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _deliver_batch(self) -> None:
        """One batch, read and written until the ledger has it."""
        tries = 0
        while True:
            batch = self._journal.recent(self._batch_rows)
            if batch is None:
                batch = await self._in_thread(lambda: self._journal.read(self._batch_rows * ENTRY_BYTES))
            self._unreadable = "the journal cannot be read" if batch is None else None
            if batch is None or await self._written(batch.rows) is None:
                tries += 1
                await asyncio.sleep(delay(tries, self._backoff, self._rng))
                self._journal.probe()
                continue
            self._damaged += len(batch.damaged)
            if batch.damaged:
                self._log.event("journal: damaged records were skipped", records=len(batch.damaged))
            self._delivered += len(batch.rows)
            self._journal.confirm(batch)
            return

    async def _inherit(self) -> None:
        root, own = self._journal.folder.parent, self._journal.folder
        while True:
            estates = await self._in_thread(lambda: list(claim(root, own)))
            for number, estate in enumerate(estates or ()):
                try:
                    await self._settle_estate(estate)
                except BaseException:  # cancelled, or a bug: the locks are for others
                    for rest in (estates or ())[number:]:
                        rest.release()
                    raise
            if estates is not None:
                self._replayed = True
                self._told.set()
            await asyncio.sleep(self._scan_s)

    async def _settle_estate(self, estate: Estate) -> None:
        """Deliver a dead process's journal and remove it; what cannot be read is left alone."""
        delivered = interrupted = 0
        rows = estate.rows()
        while True:
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._files, next, rows, None)
            except (OSError, Foreign) as error:
                if estate.folder not in self._foreign:
                    self._foreign.add(estate.folder)
                    self._log.event("journal: left alone", folder=str(estate.folder), error=str(error))
                estate.release()
                return
            if found is None:
                break
            for first in range(0, len(found), self._batch_rows):
                new = await self._written_at_last(found[first : first + self._batch_rows])
                delivered += new
                interrupted += new if found[first].outcome == "interrupted" else 0
        torn = sum(one.torn for one in estate.damaged)
        self._inherited += delivered
        self._interrupted += interrupted
        self._damaged += len(estate.damaged)
        self._log.event(
            "journal: delivered what a dead process left",
            folder=estate.folder.name,
            rows=delivered,
            interrupted=interrupted,
            damaged=len(estate.damaged) - torn,
            torn=torn,
        )
        await self._in_thread(lambda: estate.remove(self._log))

    async def _written_at_last(self, rows: Sequence[LedgerRow]) -> int:
        tries = 0
        while (new := await self._written(rows)) is None:
            tries += 1
            await asyncio.sleep(delay(tries, self._backoff, self._rng))
        return new

    async def _written(self, rows: Sequence[LedgerRow]) -> int | None:
        """How many were new; None: the ledger is away."""
        if not rows:
            return 0
        try:
            async with asyncio.timeout(WRITE_S):
                new = await self._ledger.write(rows)
        except (StoreAway, StoreUnusable, TimeoutError) as error:
            self._error = str(error) or f"no answer within {WRITE_S:g} s"
            self._told.set()
            if self._away_since is None:
                self._away_since = self._now()
                self._log.event("ledger: away, rows wait in the journal", error=self._error)
                if self._events is not None:
                    self._events.emit(EventKind.STORE, store="ledger", state="away", error=self._error)
            return None
        if self._away_since is not None:
            away_s = round(self._now() - self._away_since, 3)
            self._log.event("ledger: back", away_s=away_s)
            if self._events is not None:
                self._events.emit(EventKind.STORE, store="ledger", state="back", away_s=away_s)
            self._away_since = self._error = None
        return new

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result | None:
        """The result; None, and told, where the files cannot be had."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._files, work)
        except OSError as error:
            self._log.event("journal: cannot be read", error=str(error))
            return None
