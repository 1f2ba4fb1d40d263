"""May this attempt be made?

Can the exchange afford the target, do the breakers let it through, has the provider room for it, is it within the budgets?
"""

from typing import NamedTuple

from proxy.core.breaker import Rejection
from proxy.core.credential import Credential
from proxy.core.failure import Failure
from proxy.core.routing import Plan, Target
from proxy.phases import gate
from proxy.phases.admit import room_at
from proxy.phases.exchange import Exchange, Quote
from proxy.phases.gate import Passage
from proxy.phases.limits import Grant
from proxy.phases.quote import quote
from proxy.phases.reserve import reserve
from proxy.phases.runtime import Runtime


class Clearance(NamedTuple):
    """What an attempt goes with."""

    passage: Passage
    quote: Quote
    credential: Credential | None
    grant: Grant | None = None


async def clear(x: Exchange, runtime: Runtime, plan: Plan, target: Target) -> Clearance | Rejection | Failure:
    """Let an attempt go, or say what holds it back: a breaker or a limit (`Rejection`), or money (`Failure`)."""
    offer = quote(x, runtime, plan, target)
    if isinstance(offer, Failure):
        return offer
    admitted = await gate.admitted(x, runtime, target)
    if isinstance(admitted, Rejection):
        return admitted
    cleared = Clearance(admitted.passage, offer, admitted.credential)
    try:
        claim = runtime.table.limits.sent_to(target.provider.id, target.provider.owner)
        if claim is not None:
            room = await room_at(x, runtime, target, offer, claim)
            if isinstance(room, Rejection):
                let_go(runtime, cleared)
                return room
            cleared = cleared._replace(grant=room)
        refused = await reserve(x, runtime, target, offer.hold_nanousd)
    except BaseException:
        let_go(runtime, cleared)
        raise
    if refused is not None:
        let_go(runtime, cleared)
        return refused
    return cleared


def let_go(runtime: Runtime, cleared: Clearance) -> None:
    """What was cleared is not sent after all."""
    gate.let_go(runtime, cleared.passage)
    if cleared.grant is not None:
        runtime.limits.settle(cleared.grant, 0)
