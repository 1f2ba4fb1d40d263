"""May this attempt be made? Can the exchange afford the target, do the breakers let it through, is it within the budgets?"""

from typing import NamedTuple

from proxy.core.breaker import Rejection
from proxy.core.failure import Failure
from proxy.core.routing import Plan, Target
from proxy.phases import gate
from proxy.phases.exchange import Exchange, Quote
from proxy.phases.gate import UNHINDERED, Passage
from proxy.phases.quote import quote
from proxy.phases.reserve import reserve
from proxy.phases.runtime import Runtime


class Clearance(NamedTuple):
    """What an attempt goes with."""

    passage: Passage
    quote: Quote


async def clear(x: Exchange, runtime: Runtime, plan: Plan, target: Target) -> Clearance | Rejection | Failure:
    """Let an attempt go, or say what holds it back: a breaker (`Rejection`), or money (`Failure`)."""
    offer = quote(x, runtime, plan, target)
    if isinstance(offer, Failure):
        return offer
    passage = UNHINDERED if runtime.breakers.quiet else await gate.admitted(runtime, target)
    if isinstance(passage, Rejection):
        return passage
    try:
        refused = await reserve(x, runtime, target, offer.hold_nanousd)
    except BaseException:
        gate.let_go(runtime, passage)
        raise
    if refused is not None:
        gate.let_go(runtime, passage)
        return refused
    return Clearance(passage, offer)
