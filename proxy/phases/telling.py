"""What is told of an exchange that is over: numbers at once; to the log one record, made later, so that nobody waits."""

from functools import partial
from typing import Any, Final

from proxy.core import redact
from proxy.core.failure import Blame, FailureKind
from proxy.core.ledger import LedgerRow, Outcome
from proxy.phases.exchange import Exchange
from proxy.phases.metering import count
from proxy.phases.refuse import attempts_told
from proxy.phases.runtime import Runtime
from proxy.terms import Commitment

_ASKED_CHARS_MAX: Final = 128


def tell(x: Exchange, runtime: Runtime, now: float, booked: LedgerRow | None = None) -> None:
    """Tell the log and the meter. ``booked`` None: nothing was begun that the books would know of."""
    outcome = outcome_of(x) if booked is None else booked.outcome
    count(x, runtime, outcome, booked)
    runtime.log.exchange(partial(_record, x, now, outcome, booked))


def _record(x: Exchange, now: float, outcome: Outcome, booked: LedgerRow | None) -> dict[str, Any]:
    """What is told of an exchange. Units: milliseconds, bytes, tokens. Neither bodies nor credentials."""
    record: dict[str, Any] = {
        "id": x.id,
        "outcome": outcome,
        "status": x.status,
        "api": x.api.value,
        "asked": _asked(x),
        "route": x.plan.route if x.plan is not None else None,
        "target": x.target.name if x.target is not None else None,
        "stream": x.streamed,
        "cache": x.cache,
        "attempts": len(x.attempts),
        "ms": round((now - x.started) * 1000, 2),
        "account": x.account,
        "request_bytes": x.request_bytes,
        "relayed_bytes": x.relayed_bytes,
    }
    if x.first_event_at is not None:
        record["first_event_ms"] = round((x.first_event_at - x.started) * 1000, 2)
    if x.overhead_s is not None:
        record["overhead_ms"] = round(x.overhead_s * 1000, 2)
    reported = None if x.bill is None else x.bill.reported
    if reported is not None:
        record["usage"] = {
            "input": reported.input_tokens,
            "output": reported.output_tokens,
            "cached": reported.cached_tokens,
            "cache_write": reported.cache_write_tokens,
            "reasoning": reported.reasoning_tokens,
            "cost_nanousd": reported.cost_nanousd,
        }
    if x.bill is not None and x.bill.used.estimated:
        record["estimated"] = {"input": x.bill.used.input_tokens, "output": x.bill.used.output_tokens}
    if booked is not None:
        record["cost_nanousd"] = booked.cost_nanousd
        record["cost_source"] = booked.cost_source
    if x.failure is not None:
        record["code"] = x.failure.row.code
        record["failure"] = x.failure.kind.value
        record["message"] = redact.text(x.failure.message)
    if x.rejections:
        record["held_back"] = [target.name for target, _ in x.rejections]
    if len(x.attempts) > 1 or x.failure is not None:
        record["tried"] = attempts_told(x)
        for told, attempt in zip(record["tried"], x.attempts, strict=True):
            if attempt.failure is not None and attempt.failure.detail:
                told["detail"] = redact.text(attempt.failure.detail)
    retried = x.headers.get("x-stainless-retry-count")
    if retried and retried.isdecimal():
        record["client_retry"] = int(retried[:4])
    return record


def _asked(x: Exchange) -> str | None:
    """What the client asked for. A route is ours to name; anything else may be a secret pasted into the wrong field."""
    if x.asked is None or (x.plan is not None and x.plan.route == x.asked):
        return x.asked
    return redact.cut(x.asked, _ASKED_CHARS_MAX)


def outcome_of(x: Exchange) -> Outcome:
    """One word: `ok`, `refused` (the request's fault), `failed`, `partial` (broken after content), `client_cancelled`."""
    if x.failure is None:
        return "ok" if x.commitment is Commitment.COMPLETE else "failed"
    if x.failure.kind in (FailureKind.CLIENT_GONE, FailureKind.CLIENT_STALLED):
        return "client_cancelled"
    if x.commitment is Commitment.BROKEN:
        return "partial"
    return "refused" if x.failure.row.blame is Blame.CLIENT else "failed"
