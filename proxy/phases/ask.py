"""One attempt at one target: its record, its deadline, its clean-up, and what is learned of it."""

import asyncio
from dataclasses import replace
from typing import Final

from proxy.core.failure import Failure, FailureKind, Rejected, Tally
from proxy.core.routing import Plan
from proxy.core.tour import Step
from proxy.phases import gate
from proxy.phases.bill import tokens_of, wasted
from proxy.phases.booking import intent
from proxy.phases.call import call_to
from proxy.phases.clearance import Clearance, let_go
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.judge import Opening, judge, timeout_failure, wire_failure
from proxy.phases.runtime import Runtime
from proxy.phases.tracing import traced
from proxy.phases.watchdog import Watchdog
from proxy.ports import Fault, Reply
from proxy.terms import Commitment

NOT_WRITABLE: Final = "Penstock cannot write down what it is about to spend, so it does not spend it. Try again later."


async def ask(
    x: Exchange, runtime: Runtime, plan: Plan, step: Step, clearance: Clearance, *, watchdog: Watchdog
) -> Opening | Failure:
    """Ask a target until its first content, its failure or the watchdog's bound."""
    record = begun(x, runtime, plan, step, clearance)
    set_limit(x, plan, record.started, watchdog)
    try:
        outcome = await tried(x, runtime, plan, step, record)
    except asyncio.CancelledError:
        kind = watchdog.claim()
        if kind is None:
            raise
        outcome = _out_of_time(x, kind, record)
        failed(x, runtime, plan, record, outcome)
    x.upstream_wait_s += record.ended - record.started
    return outcome


def begun(x: Exchange, runtime: Runtime, plan: Plan, step: Step, clearance: Clearance) -> Attempt:
    """The record of an attempt that is about to be made. Errors: Rejected where it cannot be written down."""
    record = Attempt(
        step.target,
        runtime.now(),
        clearance.quote,
        clearance.credential,
        passage=clearance.passage,
        grant=clearance.grant,
    )
    x.attempts.append(record)
    if not runtime.books.intend(intent(x, plan, record, runtime.wall())):
        x.attempts.remove(record)
        let_go(runtime, clearance)
        raise Rejected(Failure(FailureKind.OVERLOADED_HERE, NOT_WRITABLE))
    x.commitment = Commitment.UNCOMMITTED
    x.outlives = plan.outlives(step.target)
    return record


def set_limit(x: Exchange, plan: Plan, now: float, watchdog: Watchdog) -> None:
    first_event_at = now + plan.timeouts.first_event_s if x.streamed else float("inf")
    if first_event_at < x.total_at:
        watchdog.limit(FailureKind.FIRST_EVENT_TIMEOUT, first_event_at)
    else:
        watchdog.limit(FailureKind.TOTAL_TIMEOUT, x.total_at)


async def tried(x: Exchange, runtime: Runtime, plan: Plan, step: Step, record: Attempt) -> Opening | Failure:
    """Send, and read up to the first content. Cancelling it drops the connection and leaves the record without a failure."""
    reply: Reply | None = None
    try:
        call, asked_usage = call_to(x, runtime, plan, step, record)
        call = traced(call, x, runtime, record)
        x.usage_asked = asked_usage
        sent = await runtime.upstream.send(call)
        if isinstance(sent, Fault):
            _check_upload(x)
            outcome: Opening | Failure = wire_failure(record.target, sent)
        else:
            reply = sent
            x.commitment = Commitment.HEAD
            outcome = await judge(x, runtime, record.target, reply, withhold_usage=asked_usage and not x.is_recorded)
    except BaseException:
        record.ended = runtime.now()
        if reply is not None:
            reply.close()
        raise
    record.ended = runtime.now()
    if isinstance(outcome, Opening):
        if plan.tiers:
            _note_speed(x, runtime, record, failed=False)
        return outcome
    if reply is not None:
        reply.close()
    if outcome.kind is FailureKind.UNSUPPORTED_PARAM and asked_usage:
        runtime.plain_targets.add(record.target.name)
    elif outcome.kind is FailureKind.UNSUPPORTED_PARAM:
        # It was the client's own field that was refused, so it is the client's to hear of.
        outcome = replace(outcome, kind=FailureKind.INVALID_REQUEST)
    failed(x, runtime, plan, record, outcome)
    return outcome


def _out_of_time(x: Exchange, kind: FailureKind, record: Attempt) -> Failure:
    if kind is FailureKind.TOTAL_TIMEOUT and x.upload is not None and not x.upload.whole:
        return Failure(FailureKind.REQUEST_TIMEOUT, "The request's time was up before its upload was complete.")
    return timeout_failure(record.target, kind, record.ended - record.started)


def _check_upload(x: Exchange) -> None:
    """Raise what ended the client's side of an upload: the wire then tells of a broken connection only."""
    if x.upload is not None and x.upload.problem is not None:
        raise x.upload.problem


def failed(x: Exchange, runtime: Runtime, plan: Plan, record: Attempt, failure: Failure) -> None:
    """Note that an attempt has ended so, and tell the breakers."""
    record.failure = failure
    record.wasted_nanousd = wasted(x, record, failure)
    gate.report(x, runtime, record)
    if record.grant is not None:
        runtime.limits.settle(record.grant, tokens_of(x, record))
    if plan.tiers and gate.tally_of(x, failure) is not Tally.IGNORE:
        _note_speed(x, runtime, record, failed=True)


def _note_speed(x: Exchange, runtime: Runtime, record: Attempt, *, failed: bool) -> None:
    took_s = record.ended - record.started
    runtime.speeds.note(record.target, took_s, record.ended, streamed=x.streamed, failed=failed)
