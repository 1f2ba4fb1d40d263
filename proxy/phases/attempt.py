"""Phase 6, attempt: can some target begin to answer?

Loops over the tour until a target has sent its first content, and returns with that answer in hand. Whatever fails
before is a value, and moves the tour on; the client has seen nothing of it.
"""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import replace
from typing import Final

from proxy.core import headers, splice, tour
from proxy.core.breaker import Cause, Rejection
from proxy.core.failure import Blame, Failure, FailureKind, Rejected
from proxy.core.routing import Plan
from proxy.core.splice import Body
from proxy.core.tour import Step, Tour
from proxy.phases import gate
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.gate import Passage
from proxy.phases.judge import Opening, judge, timeout_failure, wire_failure
from proxy.phases.runtime import Runtime
from proxy.phases.upload import Upload
from proxy.phases.watchdog import Watchdog
from proxy.ports import Call, Fault, Reply
from proxy.terms import Api, Commitment

TIMER_S: Final = 0.005
WITH_PARAMS: Final = (Api.CHAT, Api.COMPLETIONS)
# One thing under several names: whoever says one of them has said them all.
OUTPUT_CAPS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
USAGE_ASKED: Final = ("stream_options", b'{"include_usage":true}')


async def attempt(x: Exchange, runtime: Runtime, plan: Plan, watchdog: Watchdog) -> Opening:
    """The first answer that begins. Raises `Rejected` when no target's does."""
    way = Tour(plan.targets, plan.retry, runtime.rng)
    runtime.retry_budget.note_request(runtime.now())
    while (step := way.next()) is not None:
        if max(step.not_before, runtime.now()) >= x.total_at:
            break  # the deadline is nearer than the wait
        if step.not_before > runtime.now():
            x.upstream_wait_s += step.not_before - runtime.now()  # waiting is not Penstock's own work
            await asyncio.sleep(step.not_before - runtime.now())
        passage = await gate.admitted(runtime, step.target)
        if isinstance(passage, Rejection):
            _held_back(x, runtime, plan, way, passage)
            continue
        if step.repeat and not runtime.retry_budget.try_take(runtime.now()):
            gate.let_go(runtime, passage)
            continue
        try:
            outcome = await _ask(x, runtime, plan, step, passage, watchdog=watchdog)
        finally:
            if step.repeat:
                runtime.retry_budget.give_back()
        if isinstance(outcome, Opening):
            return outcome
        if x.api is Api.PASSTHROUGH:
            break  # what it does there is unknown, so it is done once
        way.failed(outcome, runtime.now())
    raise Rejected(_last_word(x, runtime, plan))


def _held_back(x: Exchange, runtime: Runtime, plan: Plan, way: Tour, rejection: Rejection) -> None:
    """A target may not be asked now. One that is only throttled, and not for long, is asked once more afterwards."""
    wait_s = max(rejection.until - runtime.wall(), 0.0)
    is_short = rejection.cause is Cause.THROTTLED and wait_s <= plan.retry.max_s
    # Two clocks, and timers that may be early by a millisecond: what is put off once is not to be late by that.
    if not (is_short and way.postpone(runtime.now() + wait_s + TIMER_S)):
        x.rejections.append((way.step.target, rejection))


def _last_word(x: Exchange, runtime: Runtime, plan: Plan) -> Failure:
    failures = [attempt.failure for attempt in x.attempts if attempt.failure is not None]
    if not failures and x.rejections:
        return gate.held_back(x, runtime.wall())
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


async def _ask(
    x: Exchange, runtime: Runtime, plan: Plan, step: Step, passage: Passage, *, watchdog: Watchdog
) -> Opening | Failure:
    """One attempt: its record, its deadline, its clean-up, and what the breakers are told."""
    target = step.target
    started = runtime.now()
    record = Attempt(target, started, passage=passage)
    x.attempts.append(record)
    _set_limit(x, plan, started, watchdog)
    x.commitment = Commitment.UNCOMMITTED
    x.outlives = plan.outlives(target)
    reply: Reply | None = None
    outcome: Opening | Failure
    asked_usage = False
    try:
        call, asked_usage = _call(x, runtime, plan, step)
        sent = await runtime.upstream.send(call)
        if isinstance(sent, Fault):
            if x.upload is not None and x.upload.problem is not None:
                raise x.upload.problem  # it is the client's side that broke
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
    if plan.tiers:
        failed = isinstance(outcome, Failure) and outcome.row.blame is not Blame.CLIENT
        runtime.speeds.note(target, record.ended - started, record.ended, streamed=x.streamed, failed=failed)
    if isinstance(outcome, Failure):
        record.failure = outcome
        if reply is not None:
            reply.close()
        if outcome.kind is FailureKind.UNSUPPORTED_PARAM and asked_usage:
            runtime.plain_targets.add(target.name)
        elif outcome.kind is FailureKind.UNSUPPORTED_PARAM:
            # It was the client's own field that was refused, so it is the client's to hear of.
            outcome = record.failure = replace(outcome, kind=FailureKind.INVALID_REQUEST)
        gate.report(x, runtime, record)
    return outcome


def _set_limit(x: Exchange, plan: Plan, now: float, watchdog: Watchdog) -> None:
    first_event_at = now + plan.timeouts.first_event_s if x.streamed else float("inf")
    if first_event_at < x.total_at:
        watchdog.limit(FailureKind.FIRST_EVENT_TIMEOUT, first_event_at)
    else:
        watchdog.limit(FailureKind.TOTAL_TIMEOUT, x.total_at)


def _call(x: Exchange, runtime: Runtime, plan: Plan, step: Step) -> tuple[Call, bool]:
    """The call to this step's target, and whether usage is asked for in the client's stead."""
    if x.upload is not None:
        return _upload_call(x, x.upload, plan, step), False
    assert x.body is not None  # noqa: S101 - accept has read it
    target = step.target
    inserted = _params(x.body, plan) if plan.params and x.api in WITH_PARAMS else ()
    asks_usage = (
        x.streamed
        and x.api in WITH_PARAMS
        and target.provider.asks_usage
        and "stream_options" not in x.body.fields
        and not step.plain
        and target.name not in runtime.plain_targets
    )
    if asks_usage:
        inserted = (*inserted, USAGE_ASKED)
    body = splice.rewrite(x.body, target.model, inserted)
    passed = headers.to_upstream(x.headers, target, x.api)
    passed["Content-Length"] = str(len(body))
    call = Call(target, target.provider.urls[x.api], passed, body, plan.timeouts.connect_s, fresh=step.fresh)
    return call, asks_usage


def _params(body: Body, plan: Plan) -> tuple[tuple[str, bytes], ...]:
    """The route's parameters that the client has not said anything about."""
    said = body.fields.keys()
    caps = said & OUTPUT_CAPS
    return tuple(
        (name, value) for name, value in plan.params if name not in said and not (caps and name in OUTPUT_CAPS)
    )


def _upload_call(x: Exchange, upload: Upload, plan: Plan, step: Step) -> Call:
    """A call whose body is still on its way from the client."""
    target = step.target
    passed = headers.to_upstream(x.headers, target, x.api)
    if x.api is Api.PASSTHROUGH:
        return _passthrough_call(x, upload, plan, step, passed)
    patch = upload.patch(target.model)
    length = upload.length(patch)
    if length is not None:
        passed["Content-Length"] = str(length)
    url = target.provider.urls[x.api]
    return Call(target, url, passed, upload.patched(patch), plan.timeouts.connect_s, fresh=step.fresh)


def _passthrough_call(x: Exchange, upload: Upload, plan: Plan, step: Step, passed: dict[str, str]) -> Call:
    body: bytes | AsyncIterable[bytes] = b""
    length = upload.length(None)
    if length != 0:
        body = upload.patched(None)
    if length or (length == 0 and x.method in {"POST", "PUT", "PATCH"}):
        passed["Content-Length"] = str(length)
    url = step.target.provider.base_url + x.path.removeprefix("/v1")
    # A kept connection may be gone, and only what is safe to repeat could be sent again.
    fresh = x.method not in {"GET", "HEAD"}
    return Call(step.target, url, passed, body, plan.timeouts.connect_s, fresh=fresh, method=x.method)
