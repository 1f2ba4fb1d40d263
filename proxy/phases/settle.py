"""Phase 8, settle: make the books right. Synchronous, so that no cancellation can split it; exactly once an exchange."""

from proxy.core.ledger import LedgerRow
from proxy.phases import gate
from proxy.phases.bill import bill, tokens_of, wasted
from proxy.phases.booking import row
from proxy.phases.exchange import Exchange
from proxy.phases.limits import Grant
from proxy.phases.runtime import Runtime
from proxy.phases.telling import outcome_of, tell
from proxy.phases.tracing import trace
from proxy.terms import TargetName


def settle(x: Exchange, runtime: Runtime) -> None:
    now = runtime.now()
    for attempt in x.attempts:
        if attempt.passage:
            gate.report(x, runtime, attempt)
    x.request_bytes = len(x.body.raw) if x.body is not None else 0
    if x.upload is not None:
        x.request_bytes = x.upload.seen_bytes
    booked = _book(x, runtime, now) if x.is_identified else None  # who is nobody writes into no book
    if x.upload is not None:
        x.upload.close()
    x.body = x.prompt = None  # the log's record is made later, and must not keep 32 MiB alive until then
    tell(x, runtime, now, booked)
    if booked is not None:
        trace(x, runtime, now, booked)


def _book(x: Exchange, runtime: Runtime, now: float) -> LedgerRow:
    """Book what was used, first in the journal: from there on it is not lost, whatever becomes of the budgets."""
    if x.target is None:
        _write_off(x)  # what was recalled has no attempts
    elif x.bill is None:
        x.bill = bill(x, whole=x.answer_whole)
    booked = row(x, runtime, outcome_of(x), now)
    runtime.books.book(booked)
    runtime.budgets.settle(x.hold, booked.cost_nanousd)
    _give_back(x, runtime)
    if x.cache != "off":
        runtime.recalls.counts[x.cache] += 1
        runtime.recalls.saved_nanousd += x.saved_nanousd
    if x.target is not None and x.bill is not None and not x.bill.used.estimated:
        output_tokens = x.bill.used.output_tokens // x.choices
        runtime.output_sizes.note(x.target.name, output_tokens)
        if x.limits is not None:
            runtime.asked_sizes.note(TargetName(x.asked or ""), output_tokens)
    return booked


def _give_back(x: Exchange, runtime: Runtime) -> None:
    """What was taken of limits and not used. What failed attempts had of their providers' they have given back."""
    for attempt in x.attempts:
        if attempt.grant is not None:
            runtime.limits.settle(attempt.grant, tokens_of(x, attempt))
    if isinstance(x.limits, Grant):
        runtime.limits.settle(x.limits, sum(tokens_of(x, attempt) for attempt in x.attempts))


def _write_off(x: Exchange) -> None:
    """Attempts that were cut off, by the client mostly, while they waited for an answer."""
    for attempt in x.attempts:
        if attempt.failure is None and x.failure is not None:
            attempt.wasted_nanousd = wasted(x, attempt, x.failure)
