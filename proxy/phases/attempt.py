"""Phase 6, attempt: can some target begin to answer?

Loops over the tour until a target has sent its first content, and returns with that answer in hand. Whatever fails
before is a value, and moves the tour on; the client has seen nothing of it.
"""

import asyncio
from dataclasses import replace
from typing import Final

from proxy.core import tour
from proxy.core.breaker import Cause, Rejection
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.routing import Plan
from proxy.core.tour import Step, Tour
from proxy.phases import gate
from proxy.phases.ask import ask
from proxy.phases.clearance import Clearance, clear, let_go
from proxy.phases.exchange import Exchange
from proxy.phases.hedge import ask_hedged, is_hedged
from proxy.phases.judge import Opening, timeout_failure
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.terms import Api

TIMER_S: Final = 0.005


async def attempt(x: Exchange, runtime: Runtime, plan: Plan, watchdog: Watchdog) -> Opening:
    """The first answer that begins. Raises `Rejected` when no target's does."""
    way = Tour(plan.targets, plan.retry, runtime.rng)
    runtime.retry_budget.note_request(runtime.now())
    while (step := way.next()) is not None:
        if max(step.not_before, runtime.now()) >= x.total_at:
            break  # the deadline is nearer than the wait
        cleared = await _cleared(x, runtime, plan, step, watchdog)
        if cleared is None:
            break
        if isinstance(cleared, Rejection):
            _held_back(x, runtime, plan, way, cleared)
            continue
        if isinstance(cleared, Failure):
            x.unaffordable.append(cleared)
            continue
        if step.repeat and not runtime.retry_budget.try_take(runtime.now()):
            let_go(runtime, cleared)
            continue
        try:
            if is_hedged(x, plan, step):
                outcome = await ask_hedged(x, runtime, plan, way, cleared, watchdog=watchdog)
            else:
                outcome = await ask(x, runtime, plan, step, cleared, watchdog=watchdog)
        finally:
            if step.repeat:
                runtime.retry_budget.give_back()
        if isinstance(outcome, Opening):
            return outcome
        if x.api is Api.PASSTHROUGH:
            break  # what it does there is unknown, so it is done once
        way.failed(outcome, runtime.now())
    raise Rejected(_last_word(x, runtime, plan))


async def _cleared(
    x: Exchange, runtime: Runtime, plan: Plan, step: Step, watchdog: Watchdog
) -> Clearance | Rejection | Failure | None:
    """Whether the step may be made when its time has come. None: the exchange's own time is up.

    Errors: Rejected where the exchange must end now.
    """
    watchdog.limit(FailureKind.TOTAL_TIMEOUT, x.total_at)  # the last attempt's bound is none of this wait
    try:
        wait_s = step.not_before - runtime.now()
        if wait_s > 0:
            x.upstream_wait_s += wait_s  # waiting is not Penstock's own work
            await asyncio.sleep(wait_s)
        return await clear(x, runtime, plan, step.target)
    except asyncio.CancelledError:
        kind = watchdog.claim()
        if kind is None:
            raise
        if kind is FailureKind.TOTAL_TIMEOUT:
            return None
        raise Rejected(timeout_failure(step.target, kind, runtime.now() - x.started)) from None


def _held_back(x: Exchange, runtime: Runtime, plan: Plan, way: Tour, rejection: Rejection) -> None:
    """A target may not be asked now. One that is only throttled, and not for long, is asked once more afterwards."""
    wait_s = max(rejection.until - runtime.wall(), 0.0)
    is_short = rejection.cause in (Cause.THROTTLED, Cause.LIMITED) and wait_s <= plan.retry.max_s
    # Two clocks, and timers that may be early by a millisecond: what is put off once is not to be late by that.
    if not (is_short and way.postpone(runtime.now() + wait_s + TIMER_S)):
        x.rejections.append((way.step.target, rejection))


def _last_word(x: Exchange, runtime: Runtime, plan: Plan) -> Failure:
    failures = [attempt.failure for attempt in x.attempts if attempt.failure is not None]
    if not failures and x.rejections:
        return gate.held_back(x, runtime.wall())
    if not failures and x.unaffordable:
        return _unaffordable(x)
    if not failures:
        return Failure(FailureKind.TOTAL_TIMEOUT, "The request's time was up before it could be sent to a provider.")
    failure = tour.verdict(failures)
    if len(failures) > 1 and failure.row.status is not None:
        tried = len({attempt.target.name for attempt in x.attempts})
        if tried > 1:
            failure = replace(failure, message=f"All {tried} targets failed; the last one: {failure.message}")
    if plan.route is None and failure.kind in (FailureKind.MODEL_NOT_FOUND, FailureKind.NOT_FOUND):
        return replace(failure, named_directly=True)
    return failure


def _unaffordable(x: Exchange) -> Failure:
    """Why money kept every target from being asked: what waiting may mend comes first, then the budget, then the rest."""
    ranked = (FailureKind.BUDGET_UNAVAILABLE, FailureKind.BUDGET_EXCEEDED)
    return min(
        x.unaffordable, key=lambda failure: ranked.index(failure.kind) if failure.kind in ranked else len(ranked)
    )
