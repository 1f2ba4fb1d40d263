"""A hedge: where the first target takes longer for its first event than 95 of 100 did, a second one is asked as well.

The first content wins; the other call is dropped, and stands in the record as what it was. At most `HEDGED` of a route's
requests are hedged, and hedges take from the retry budget too. Only streams, only before content, only the first step.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from proxy.core.breaker import Rejection
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.pace import Pace
from proxy.core.retry_budget import RetryBudget
from proxy.core.routing import Plan
from proxy.core.tour import Step, Tour
from proxy.phases.ask import begun, failed, set_limit, tried
from proxy.phases.clearance import Clearance, clear
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.judge import Opening, timeout_failure
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog

HEDGED: Final = 0.02


class Hedging:
    """What one route's hedges go by."""

    __slots__ = ("budget", "pace")

    def __init__(self) -> None:
        self.pace = Pace()
        self.budget = RetryBudget(HEDGED, floor=1)


@dataclass(slots=True)
class _Try:
    step: Step
    record: Attempt
    task: asyncio.Task[Opening | Failure]


def is_hedged(x: Exchange, plan: Plan, step: Step) -> bool:
    return plan.hedge and x.streamed and x.upload is None and not x.attempts and step.repeat == 0


async def ask_hedged(
    x: Exchange, runtime: Runtime, plan: Plan, way: Tour, cleared: Clearance, *, watchdog: Watchdog
) -> Opening | Failure:
    """Ask the tour's last step, and perhaps its next one too. A `Failure` is that of the tour's last step."""
    route = plan.route or plan.asked
    hedging = runtime.hedging.get(route)
    if hedging is None:
        hedging = runtime.hedging[route] = Hedging()
    hedging.budget.note_request(runtime.now())
    started = runtime.now()
    set_limit(x, plan, started, watchdog)
    tries = [_begin(x, runtime, plan, way.step, cleared)]
    hedges = 0
    try:
        after_s = hedging.pace.p95_s()
        done, _ = await asyncio.wait({tries[0].task}, timeout=after_s)
        if not done:
            second = await _second(x, runtime, plan, way, hedging)
            if second is not None:
                hedges = 1
                tries.append(second)
        won = await _first_content(way, runtime, tries)
    except asyncio.CancelledError:
        await _drop(tries)
        kind = watchdog.claim()
        if kind is None:
            raise
        for one in tries:
            if one.record.failure is None:
                after = timeout_failure(one.record.target, kind, one.record.ended - one.record.started)
                failed(x, runtime, plan, one.record, after)
        won = None
    finally:
        if hedges:
            hedging.budget.give_back()
            runtime.retry_budget.give_back()
        x.upstream_wait_s += runtime.now() - started
    if won is None:
        failure = tries[-1].record.failure
        assert failure is not None  # noqa: S101 - none of them won
        return failure
    await _lose(x, runtime, plan, [one for one in tries if one is not won], won)
    hedging.pace.note(won.record.ended - started)
    x.attempts.remove(won.record)
    x.attempts.append(won.record)  # the last attempt is the one that answers
    x.outlives = plan.outlives(won.record.target)
    outcome = won.task.result()
    assert isinstance(outcome, Opening)  # noqa: S101 - it won
    return outcome


def _begin(x: Exchange, runtime: Runtime, plan: Plan, step: Step, cleared: Clearance) -> _Try:
    record = begun(x, runtime, plan, step, cleared)
    return _Try(step, record, asyncio.create_task(tried(x, runtime, plan, step, record)))


async def _second(x: Exchange, runtime: Runtime, plan: Plan, way: Tour, hedging: Hedging) -> _Try | None:
    """The hedge, if there is a target that was not asked yet, and both budgets allow it."""
    if not way.has_planned or not hedging.budget.try_take(runtime.now()):
        return None
    if not runtime.retry_budget.try_take(runtime.now()):
        hedging.budget.give_back()
        return None
    begun: _Try | None = None
    try:
        begun = await _hedge(x, runtime, plan, way)
    finally:
        if begun is None:
            hedging.budget.give_back()
            runtime.retry_budget.give_back()
    return begun


async def _hedge(x: Exchange, runtime: Runtime, plan: Plan, way: Tour) -> _Try | None:
    step = way.next()
    if step is None:
        return None
    cleared = await clear(x, runtime, plan, step.target)
    if isinstance(cleared, Rejection):
        x.rejections.append((step.target, cleared))
        return None
    if isinstance(cleared, Failure):
        x.unaffordable.append(cleared)
        return None
    try:
        return _begin(x, runtime, plan, step, cleared)
    except Rejected:  # it cannot be written down; what is under way is, and goes on
        return None


async def _first_content(way: Tour, runtime: Runtime, tries: list[_Try]) -> _Try | None:
    """Whose content came first; None where all have failed. The tour is told of all failures but the last."""
    waiting = list(tries)
    while True:
        await asyncio.wait({one.task for one in waiting}, return_when=asyncio.FIRST_COMPLETED)
        for one in [one for one in waiting if one.task.done()]:
            outcome = one.task.result()
            if isinstance(outcome, Opening):
                return one
            waiting.remove(one)
            if not waiting:
                tries.remove(one)
                tries.append(one)
                way.resume(one.step)
                return None
            way.failed(outcome, runtime.now(), one.step)


async def _lose(x: Exchange, runtime: Runtime, plan: Plan, losers: list[_Try], won: _Try) -> None:
    await _drop(losers)
    for one in losers:
        if one.record.failure is None:
            words = f"{won.record.target.name} was quicker than {one.record.target.name}."
            failed(x, runtime, plan, one.record, Failure(FailureKind.HEDGE_LOST, words, target=one.record.target.name))


async def _drop(tries: list[_Try]) -> None:
    """End what still runs. An answer that has begun in the very same moment is let go of as well."""
    for one in tries:
        one.task.cancel()
    for outcome in await asyncio.gather(*(one.task for one in tries), return_exceptions=True):
        if isinstance(outcome, Opening):
            outcome.reply.close()
