"""The gate before an attempt: what the breakers of a target and of its provider's credential say, and what they are told.

Every attempt passes once, and is reported once: at once where it failed before commitment, by `settle` where it began to
answer or was cancelled. Whatever becomes of it, a lease that it holds is given back so.
"""

from collections.abc import Sequence
from typing import Final

from proxy.core import breaker
from proxy.core.breaker import Admission, Cause, Event, Rejection, Subject
from proxy.core.failure import Failure, FailureKind, Tally
from proxy.core.routing import Target
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.runtime import Runtime
from proxy.terms import Api, Commitment

Passage = tuple[tuple[Subject, Admission], ...]
_CLIENTS: Final = (FailureKind.CLIENT_GONE, FailureKind.CLIENT_STALLED, FailureKind.SHUTTING_DOWN)


# Of a target while nothing is known of any: then nobody has to be asked, and only a failure is worth telling.
UNHINDERED: Final[Passage] = ((Subject(""), breaker.PASS),)


async def admitted(runtime: Runtime, target: Target) -> Passage | Rejection:
    """What an attempt at `target` goes with, or why it may not go. Asks a store only where a probe needs its lease."""
    now = runtime.wall()
    passage: list[tuple[Subject, Admission]] = []
    try:
        for subject in _subjects(runtime, target):
            decision = runtime.breakers.admit(subject, now)
            if isinstance(decision, Admission) and decision.probe:
                decision = await runtime.breakers.lease(subject, now)
            if isinstance(decision, Rejection):
                let_go(runtime, passage)
                return decision
            passage.append((subject, decision))
    except BaseException:
        let_go(runtime, passage)
        raise
    return tuple(passage)


def _subjects(runtime: Runtime, target: Target) -> tuple[Subject, ...]:
    credential = runtime.credentials.get(target.provider.id)
    own = breaker.target_subject(target.name)
    return (own,) if credential is None else (own, credential)


def let_go(runtime: Runtime, passage: Sequence[tuple[Subject, Admission]]) -> None:
    """What was admitted is not sent after all."""
    for subject, admission in passage:
        runtime.breakers.report(subject, admission, Event.IGNORED, runtime.wall())


def report(x: Exchange, runtime: Runtime, attempt: Attempt) -> None:
    """Tell the breakers how an attempt ended, by the failure that it has by now. Does nothing the second time."""
    passage, attempt.passage = attempt.passage, ()
    failure = attempt.failure
    tally = tally_of(x, failure)
    if passage is UNHINDERED:
        if tally in (None, Tally.IGNORE) and runtime.breakers.quiet:
            return
        passage = tuple((subject, breaker.PASS) for subject in _subjects(runtime, attempt.target))
    now = runtime.wall()
    for index, (subject, admission) in enumerate(passage):
        event = breaker.EVENTS[tally][min(index, 1)]
        hint_s = None if failure is None else failure.retry_after_s
        error = "" if failure is None else failure.kind.value
        runtime.breakers.report(subject, admission, event, now, hint_s=hint_s, error=error)
        if event is Event.FAILURE and hint_s is not None:
            # A 503 with a Retry-After is a failure, and is left alone for that time, but never longer than an open circuit.
            most_s = runtime.breakers.policy.cooldown_s
            runtime.breakers.report(subject, admission, Event.COOL_DOWN, now, hint_s=min(hint_s, most_s), error=error)


def tally_of(x: Exchange, failure: Failure | None) -> Tally | None:
    """What the breakers make of an attempt that ended so; None: it went well."""
    if x.api is Api.PASSTHROUGH:
        return Tally.IGNORE  # a path that the client chose says nothing of others
    if failure is None:
        over = x.failure is None or x.failure.kind not in _CLIENTS
        return None if over and x.commitment is Commitment.COMPLETE else Tally.IGNORE
    if failure.kind is FailureKind.TOTAL_TIMEOUT and x.hurried:
        return Tally.IGNORE  # the client's own deadline says nothing of the target
    if failure.kind is FailureKind.MODEL_NOT_FOUND and x.plan is not None and x.plan.route is None:
        return Tally.IGNORE  # the client named this very model
    return failure.row.tally


def held_back(x: Exchange, now: float) -> Failure:
    """Why nothing was sent: every target is open or cools down. ``now``: the wall clock."""
    rejections = x.rejections
    target, soonest = min(rejections, key=lambda one: one[1].until)
    wait_s = max(soonest.until - now, 0.0)
    if x.plan is not None and x.plan.route is None and soonest.last_error == FailureKind.MODEL_NOT_FOUND.value:
        message = (
            f"{target.name} is not known to its provider, which said so lately; it is asked again in {wait_s:.0f} s."
        )
        return Failure(FailureKind.MODEL_UNKNOWN, message, param="model", target=target.name)
    causes = {rejection.cause for _, rejection in rejections}
    if causes <= {Cause.THROTTLED, Cause.LIMITED} and Cause.LIMITED in causes:
        message = (
            f"No target may be asked now; {target.name} is the first to be free, in {wait_s:.0f} s ({_why(soonest)})."
        )
        return Failure(FailureKind.LIMIT_REACHED, message, target=target.name, retry_after_s=wait_s)
    if causes == {Cause.THROTTLED}:
        message = (
            f"Every target cools down after a rate limit; {target.name} is the first to be free, in {wait_s:.0f} s."
        )
        return Failure(FailureKind.THROTTLED, message, target=target.name, retry_after_s=wait_s)
    why = _why(soonest)
    message = f"Every target is held back by its breaker; {target.name} is asked again in {wait_s:.0f} s ({why})."
    return Failure(FailureKind.NO_TARGET, message, target=target.name, retry_after_s=wait_s)


def _why(rejection: Rejection) -> str:
    words = {
        Cause.FAILURES: "it failed too often",
        Cause.THROTTLED: "it is throttled",
        Cause.QUOTA: "its account is empty",
        Cause.QUARANTINE: "it refused the credential or the model",
        Cause.NONE: "it is being probed",
        Cause.LIMITED: "its provider's limit is reached",
    }[rejection.cause]
    return f"{words}: {rejection.last_error}" if rejection.last_error else words


def skipped_told(x: Exchange) -> list[dict[str, object]]:
    """The targets that were not asked, as the error's metadata tells them."""
    told: list[dict[str, object]] = []
    told += [{"target": target.name, "skipped": _why(rejection)} for target, rejection in x.rejections]
    told += [{"target": failure.target, "skipped": failure.row.code} for failure in x.unaffordable]
    return told
