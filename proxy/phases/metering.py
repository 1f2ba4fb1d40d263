"""What is counted of an exchange when it is over: numbers alone, and once."""

from proxy.core.failure import FailureKind
from proxy.core.ledger import LedgerRow, Outcome
from proxy.phases.exchange import Attempt, Exchange
from proxy.phases.runtime import Runtime


def count(x: Exchange, runtime: Runtime, outcome: Outcome, booked: LedgerRow | None) -> None:
    """``booked`` None: nothing was begun that the books would know of."""
    meter = runtime.meter
    if meter is None:
        return
    if booked is None:
        meter.refused(x.api.value, x.status, outcome)
        return
    meter.exchange(booked, [(one.target.provider.id, _ended_as(x, one)) for one in x.attempts], x.overhead_s)


def _ended_as(x: Exchange, attempt: Attempt) -> str:
    """`ok` where it began to answer."""
    if attempt.failure is not None:
        return attempt.failure.kind.value
    if x.target is not None:
        return "ok"
    return (FailureKind.CLIENT_GONE if x.failure is None else x.failure.kind).value
