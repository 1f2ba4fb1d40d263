"""Finds out how each function that leans on a store works now, and since when: what `/health` and the metrics tell.

Redis says itself how it is (`stores/redis/connection`), and so do the keys' copy and the outbox. A database says nothing to
those who do not ask: it is asked every `ASK_EVERY_S`, in turns of the loop, so that a loop which was busy does not take its
own pause for the store's. A question that is not answered stays under way: a driver may need longer to give it up than the
store was to answer it, and the answer tells at once that the store is back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.core.store_mode import Function, Mode, Standing, cause, mode_of
from proxy.phases.budgets import Budgets
from proxy.phases.key_ring import KeyRing
from proxy.phases.limits import Limiter
from proxy.ports import BooksState, ExchangeLog, StoreAway, StoreState, StoreUnusable

LOOK_EVERY_S: Final = 0.5
ASK_EVERY_S: Final = 2.0
ANSWER_TURN_S: Final = 0.1
ANSWER_TURNS: Final = 20  # 2 s
COPY_FRESH_S: Final = 5.0  # the keys are read twice a second
CLOSE_S: Final = 0.5

Ask = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Sources:
    """Who knows it. ``redis`` None: there is none. ``keys`` None: virtual keys are not kept."""

    redis: Callable[[], StoreState] | None
    database: str
    budgets: Budgets
    limits: Limiter
    keys: KeyRing | None
    books: Callable[[], BooksState]
    budgets_close: Callable[[], bool]


class StoreModes:
    """``asked``: questions that a database answers cheaply, by function. `start` once, `close` at the end."""

    def __init__(
        self, sources: Sources, asked: Mapping[Function, Ask], log: ExchangeLog, wall: Callable[[], float]
    ) -> None:
        self._sources = sources
        self._asked = asked
        self._log = log
        self._wall = wall
        self._silent: dict[Function, str] = {}  # what was wrong with the last question
        self._standings: dict[Function, Standing] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._questions: dict[Function, asyncio.Future[object]] = {}

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._watch(function, ask)) for function, ask in self._asked.items()]
        self._tasks.append(asyncio.create_task(self._keep()))
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        questions = tuple(self._questions.values())
        for question in questions:
            question.cancel()
        if questions:
            await asyncio.wait(questions, timeout=CLOSE_S)

    def look(self) -> Mapping[Function, Standing]:
        """How every function works at this moment. Asks nobody."""
        now = self._wall()
        for function, found in self._found().items():
            before = self._standings.get(function)
            since = before.since if before is not None and before.mode is found.mode else now
            if found.mode is Mode.SHARED:
                self._standings[function] = found
            else:
                self._standings[function] = Standing(found.mode, found.where, since, found.why)
            if (Mode.SHARED if before is None else before.mode) is not found.mode:
                self._log.event("mode", function=function.value, mode=found.mode.value, why=found.why)
        return self._standings

    def _found(self) -> dict[Function, Standing]:
        known, state = self._sources, None if self._sources.redis is None else self._sources.redis()
        where = "memory" if state is None else "redis"
        down = "" if state is None or state.up else state.last_error or "away"
        found = {
            Function.BUDGETS: _standing(
                Function.BUDGETS, where, down or known.budgets.away, at_worst=known.budgets_close()
            ),
            Function.LIMITS: _standing(Function.LIMITS, where, down or known.limits.away),
        }
        for function in (Function.BREAKERS, Function.CACHE, Function.SINGLE_FLIGHT, Function.EVENTS):
            found[function] = _standing(function, where, down)
        if known.keys is not None:
            found[Function.KEYS] = self._keys(known.keys)
        found[Function.LEDGER] = self._ledger(known.books())
        found[Function.AUDIT] = _standing(Function.AUDIT, known.database, self._silent.get(Function.AUDIT, ""))
        return found

    def _keys(self, keys: KeyRing) -> Standing:
        state = keys.state
        is_old = state.age_s is None or state.age_s > COPY_FRESH_S
        error = state.error or ("no answer" if is_old else "")
        return _standing(Function.KEYS, self._sources.database, error, at_worst=not state.is_good)

    def _ledger(self, books: BooksState) -> Standing:
        error = books.trouble or books.error or self._silent.get(Function.LEDGER, "")
        return _standing(Function.LEDGER, self._sources.database, error, at_worst=books.trouble is not None)

    async def _keep(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _watch(self, function: Function, ask: Ask) -> None:
        while True:
            question = self._questions[function] = asyncio.ensure_future(ask())
            for _ in range(ANSWER_TURNS):
                done, _ = await asyncio.wait({question}, timeout=ANSWER_TURN_S)
                if done:
                    break
            else:
                self._silent[function] = "no answer"
                await asyncio.wait({question})
            self._answered(function, question)
            await asyncio.sleep(ASK_EVERY_S)

    def _answered(self, function: Function, question: "asyncio.Future[object]") -> None:
        try:
            question.result()
        except (StoreAway, StoreUnusable) as away:
            self._silent[function] = str(away) or "away"
        else:
            self._silent.pop(function, None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """They end only when they are cancelled: otherwise that is a bug."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("store modes", error)


def _standing(function: Function, where: str, error: str, *, at_worst: bool = False) -> Standing:
    mode = mode_of(function, away=bool(error), at_worst=at_worst)
    return Standing(mode, where, why=cause(error) if error else None)
