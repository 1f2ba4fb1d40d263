"""Phase 3, admit: may they, now? Requests, tokens and a slot of the caller's limits, in one store call; none where there are
none. What a provider may be sent is asked here too, by `clearance`, for each attempt.
"""

from typing import Final

from proxy.core import cost, limit_words
from proxy.core.breaker import Cause, Rejection
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.limit_table import limited_subjects
from proxy.core.limiting import TOKENS_MAX, LimitClaim, LimitLease, LimitLeaseId
from proxy.core.routing import Target
from proxy.phases.bill import input_tokens
from proxy.phases.exchange import Exchange, Quote
from proxy.phases.limits import Grant, LimitReached
from proxy.phases.quote import CAPPED, UNBILLED, client_cap, generated
from proxy.phases.runtime import Runtime
from proxy.terms import TargetName

SLOT_WAIT_S: Final = 1.0  # when a slot will be free nobody knows


async def admit(x: Exchange, runtime: Runtime) -> None:
    """Take of the caller's limits. Raises `Rejected`."""
    claims = limited_subjects(x.principal, runtime.table.limits)
    if not claims:
        return
    sizes = _sizes(claims)
    tokens = _tokens(x, client_cap(x), runtime.asked_sizes.p99(TargetName(x.asked or "")), min(sizes)) if sizes else 0
    taken = await runtime.limits.take(LimitLease(LimitLeaseId(x.booked_as), claims, tokens))
    x.limits = taken
    if isinstance(taken, LimitReached):
        if runtime.meter is not None:
            runtime.meter.limited(taken.limited.value)
        message = limit_words.refusal(taken.claim, taken.limited, tokens, taken.wait_ms)
        if taken.never:
            raise Rejected(Failure(FailureKind.LIMIT_TOO_LOW, message))
        raise Rejected(Failure(FailureKind.LIMIT_REACHED, message, retry_after_s=_wait_s(taken)))


async def room_at(x: Exchange, runtime: Runtime, target: Target, quote: Quote, claim: LimitClaim) -> Grant | Rejection:
    """Take of the limits of a target's provider, for one attempt. A request larger than its minute takes all of it."""
    tokens = 0
    if claim.tokens is not None:
        learned = runtime.output_sizes.p99(target.name)
        size = claim.tokens.size // claim.tokens.unit
        tokens = min(_tokens(x, client_cap(x) or quote.output_cap, learned, size), size)
    x.clearances += 1
    taken = await runtime.limits.take(LimitLease(LimitLeaseId(f"{x.booked_as}.{x.clearances}"), (claim,), tokens))
    if isinstance(taken, Grant):
        return taken
    why = f"{limit_words.whose(claim)} may be sent {limit_words.limits_told(claim)}"
    return Rejection(runtime.wall() + _wait_s(taken), Cause.LIMITED, why)


def limit_headers(x: Exchange) -> list[tuple[str, str]]:
    """`x-ratelimit-*`, as at admission."""
    return [] if x.limits is None else limit_words.headers(x.limits.claims, x.limits.standings)


def _tokens(x: Exchange, cap: int | None, learned: int, most: int) -> int:
    """How many tokens a request may use. What nobody has said of its output is a guess, which excludes no request."""
    if x.body is None or x.api in UNBILLED:
        return 0
    asked = min(input_tokens(x), TOKENS_MAX)
    if x.api not in CAPPED:
        return asked
    if cap is not None:
        return min(asked + cap * generated(x), TOKENS_MAX)
    guessed = (learned or cost.OUTPUT_TOKENS_DEFAULT) * generated(x)
    return max(asked, min(asked + guessed, most))


def _sizes(claims: tuple[LimitClaim, ...]) -> list[int]:
    """How many tokens there may be in a minute, of each subject that has such a limit."""
    return [claim.tokens.size // claim.tokens.unit for claim in claims if claim.tokens is not None]


def _wait_s(reached: LimitReached) -> float:
    return SLOT_WAIT_S if reached.wait_ms is None else reached.wait_ms / 1000
