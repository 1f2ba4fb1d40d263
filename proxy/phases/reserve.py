"""What an exchange may cost is held in the budgets before it is sent, and grows with every target that is asked."""

from proxy.core.budget import Refused
from proxy.core.budget_words import refusal
from proxy.core.failure import Failure, FailureKind
from proxy.core.routing import Target
from proxy.phases.exchange import Exchange
from proxy.phases.runtime import Runtime
from proxy.ports import Away
from proxy.terms import NanoUsd


async def reserve(x: Exchange, runtime: Runtime, target: Target, worst_case: NanoUsd) -> Failure | None:
    """Hold what the exchange may cost with one more attempt: what its earlier ones may have used, and `worst_case`.

    None: it is held. An attempt that may cost nothing asks nobody, so a free target is there when budgets are spent.
    """
    payers = runtime.table.budgets.payers_of(x.account)
    if x.principal.payers:
        payers = (*x.principal.payers, *payers)
    if not payers or not worst_case:
        return None
    amount = NanoUsd(x.at_stake_nanousd + worst_case)
    if amount <= x.held_nanousd:
        return None
    held = await runtime.budgets.reserve(x.booked_as, payers, amount, x.admitted_ms)
    if isinstance(held, Refused):
        return Failure(FailureKind.BUDGET_EXCEEDED, refusal(held), target=target.name)
    if isinstance(held, Away):
        message = "The budget cannot be asked now, and what may be spent without it is spent. Try again soon."
        return Failure(FailureKind.BUDGET_UNAVAILABLE, message, target=target.name, detail=held.detail)
    x.hold, x.held_nanousd = held, amount
    return None
