"""Phase 6, attempt: can some target begin to answer?

Loops over the tour until a target has sent its first content, and returns with that answer in hand. Whatever fails
before is a value, and moves the tour on; the client has seen nothing of it.
"""

import asyncio
from dataclasses import replace
from typing import Final

from proxy.core import headers, splice, tour
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.routing import Plan
from proxy.core.tour import Step, Tour
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.judge import Opening, judge, timeout_failure, wire_failure
from proxy.phases.runtime import Runtime
from proxy.phases.watchdog import Watchdog
from proxy.ports import Call, Fault, Reply
from proxy.terms import Api, Commitment

USAGE_ASKED: Final = ("stream_options", b'{"include_usage":true}')


async def attempt(x: Exchange, runtime: Runtime, plan: Plan, watchdog: Watchdog) -> Opening:
    """The first answer that begins. Raises `Rejected` when no target's does."""
    way = Tour(plan.targets, runtime.backoff, runtime.rng)
    while (step := way.next()) is not None:
        if max(step.not_before, runtime.now()) >= x.total_at:
            break  # the deadline is nearer than the wait
        if step.not_before > runtime.now():
            x.upstream_wait_s += step.not_before - runtime.now()  # waiting is not Penstock's own work
            await asyncio.sleep(step.not_before - runtime.now())
        outcome = await _ask(x, runtime, plan, step, watchdog)
        if isinstance(outcome, Opening):
            return outcome
        way.failed(outcome, runtime.now())
    raise Rejected(_last_word(x, plan))


def _last_word(x: Exchange, plan: Plan) -> Failure:
    failures = [attempt.failure for attempt in x.attempts if attempt.failure is not None]
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


async def _ask(x: Exchange, runtime: Runtime, plan: Plan, step: Step, watchdog: Watchdog) -> Opening | Failure:
    """One attempt: its record, its deadline, its clean-up."""
    target = step.target
    started = runtime.now()
    record = Attempt(target, started)
    x.attempts.append(record)
    _set_limit(x, plan, started, watchdog)
    x.commitment = Commitment.UNCOMMITTED
    reply: Reply | None = None
    outcome: Opening | Failure
    asked_usage = False
    try:
        call, asked_usage = _call(x, runtime, plan, step)
        sent = await runtime.upstream.send(call)
        if isinstance(sent, Fault):
            outcome = wire_failure(target, sent)
        else:
            reply = sent
            x.commitment = Commitment.HEAD
            outcome = await judge(x, runtime, target, reply, withhold_usage=asked_usage)
    except asyncio.CancelledError:
        if reply is not None:
            reply.close()
        kind = watchdog.claim()
        if kind is None:
            record.ended = runtime.now()
            raise
        outcome = timeout_failure(target, kind, runtime.now() - started)
    record.ended = runtime.now()
    x.upstream_wait_s += record.ended - started
    if isinstance(outcome, Failure):
        record.failure = outcome
        if reply is not None:
            reply.close()
        if outcome.kind is FailureKind.UNSUPPORTED_PARAM and asked_usage:
            runtime.plain_targets.add(target.name)
        elif outcome.kind is FailureKind.UNSUPPORTED_PARAM:
            # It was the client's own field that was refused, so it is the client's to hear of.
            outcome = record.failure = replace(outcome, kind=FailureKind.INVALID_REQUEST)
    return outcome


def _set_limit(x: Exchange, plan: Plan, now: float, watchdog: Watchdog) -> None:
    first_event_at = now + plan.timeouts.first_event_s if x.streamed else float("inf")
    if first_event_at < x.total_at:
        watchdog.limit(FailureKind.FIRST_EVENT_TIMEOUT, first_event_at)
    else:
        watchdog.limit(FailureKind.TOTAL_TIMEOUT, x.total_at)


def _call(x: Exchange, runtime: Runtime, plan: Plan, step: Step) -> tuple[Call, bool]:
    """The call to this step's target, and whether usage is asked for in the client's stead."""
    assert x.body is not None  # noqa: S101 - accept has read it
    target = step.target
    asks_usage = (
        x.streamed
        and x.api in (Api.CHAT, Api.COMPLETIONS)
        and target.provider.asks_usage
        and "stream_options" not in x.body.fields
        and not step.plain
        and target.name not in runtime.plain_targets
    )
    body = splice.rewrite(x.body, target.model, (USAGE_ASKED,) if asks_usage else ())
    passed = headers.to_upstream(x.headers, target, x.api)
    passed["Content-Length"] = str(len(body))
    call = Call(target, target.provider.urls[x.api], passed, body, plan.timeouts.connect_s, fresh=step.fresh)
    return call, asks_usage
