"""The gate before an attempt: what the breakers of a target and of its provider's credentials say, and what they are told.

Of several credentials the first is shown that is not held back: none is spared, so what a provider counts by credential
stays in one place, and the second is asked only where the first is refused.

Every attempt passes once, and is reported once: at once where it failed before commitment, by `settle` where it began to
answer or was cancelled. Whatever becomes of it, a lease that it holds is given back so.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from proxy.core import breaker
from proxy.core.breaker import Admission, Cause, Event, Rejection, Subject
from proxy.core.credential import Credential
from proxy.core.failure import Failure, FailureKind, Tally
from proxy.core.routing import Target
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.runtime import Runtime
from proxy.terms import Api, Commitment

Passage = tuple[tuple[Subject, Admission], ...]
_CLIENTS: Final = (FailureKind.CLIENT_GONE, FailureKind.CLIENT_STALLED, FailureKind.SHUTTING_DOWN)


# Of a target while nothing is known of any: then nobody has to be asked, and only a failure is worth telling.
UNHINDERED: Final[Passage] = ((Subject(""), breaker.PASS),)


class Admitted(NamedTuple):
    """What an attempt goes with; ``credential`` None: its provider needs none."""

    passage: Passage
    credential: Credential | None


async def admitted(x: Exchange, runtime: Runtime, target: Target) -> Admitted | Rejection:
    """What an attempt at `target` goes with, or why it may not go. Asks a store only where a probe needs its lease."""
    if runtime.breakers.quiet:
        credentials = target.provider.credentials
        return Admitted(UNHINDERED, credentials[0] if credentials else None)
    now = runtime.wall()
    own = await _admitted(runtime, breaker.target_subject(target.name, target.provider.owner), now)
    if isinstance(own, Rejection):
        return own
    if not target.provider.credentials:
        return Admitted((own,), None)
    held_back: list[Rejection] = []
    try:
        for credential in _not_refused(x, target):
            shown = await _admitted(runtime, breaker.credential_subject(target.provider.id, credential.value), now)
            if not isinstance(shown, Rejection):
                return Admitted((own, shown), credential)
            held_back.append(shown)
    except BaseException:
        let_go(runtime, (own,))
        raise
    let_go(runtime, (own,))
    refused = Rejection(now, Cause.QUARANTINE, FailureKind.CREDENTIAL_REJECTED.value)  # all of them, in this exchange
    return min(held_back, key=lambda one: one.until, default=refused)


async def _admitted(runtime: Runtime, subject: Subject, now: float) -> tuple[Subject, Admission] | Rejection:
    decision = runtime.breakers.admit(subject, now)
    if isinstance(decision, Admission) and decision.probe:
        decision = await runtime.breakers.lease(subject, now)
    return decision if isinstance(decision, Rejection) else (subject, decision)


def _not_refused(x: Exchange, target: Target) -> Iterator[Credential]:
    """The credentials that this exchange has not been refused with, whatever the breakers have heard of it by now."""
    refused = {
        attempt.credential
        for attempt in x.attempts
        if attempt.failure is not None and attempt.failure.kind is FailureKind.CREDENTIAL_REJECTED
    }
    return (credential for credential in target.provider.credentials if credential not in refused)


def _subjects(attempt: Attempt) -> tuple[Subject, ...]:
    provider, credential = attempt.target.provider, attempt.credential
    own = breaker.target_subject(attempt.target.name, provider.owner)
    return (own,) if credential is None else (own, breaker.credential_subject(provider.id, credential.value))


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
        passage = tuple((subject, breaker.PASS) for subject in _subjects(attempt))
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
