"""What the books are told of an exchange: the intent before an attempt, the row when it is over."""

from typing import Final

from proxy.core import cost, redact
from proxy.core.ledger import CostSource, Intent, LedgerRow, Outcome
from proxy.core.routing import Plan
from proxy.core.tags import Tags, joined, parse
from proxy.core.tariff import Tariff
from proxy.phases.exchange import Attempt, Bill, Exchange
from proxy.phases.runtime import Runtime
from proxy.terms import Api, Commitment, ExchangeId, NanoUsd, ProviderId, Usage

_US_PER_MS: Final = 1000
_NOTHING_USED: Final = Usage(0, 0)


def intent(x: Exchange, plan: Plan, attempt: Attempt, wall: float) -> Intent:
    """That `attempt` is about to be sent. ``worst_case_nanousd``: of the whole exchange, as it is held in the budgets."""
    target = attempt.target
    return Intent(
        x.booked_as,
        int(wall * 1_000_000),
        x.admitted_ms * _US_PER_MS,
        x.account,
        x.api.value,
        target.provider.id,
        target.model if _is_route(x) else target.masked_model,
        x.at_stake_nanousd,
        len(x.attempts),
        x.principal.virtual_key,
        plan.route,
        x.streamed,
        0,
        _request_id(x),
        tags_of(x),
    )


def row(x: Exchange, runtime: Runtime, outcome: Outcome, now: float) -> LedgerRow:
    """The row of an exchange that is over. ``now``: monotonic."""
    provider, model = _answered_by(x)
    bill, plan = x.bill, x.plan
    used = _NOTHING_USED if bill is None else bill.used
    started_us = x.admitted_ms * _US_PER_MS
    took_s = now - x.started
    return LedgerRow(  # in their order: by name it takes twice as long, and there is one for every exchange
        x.booked_as,
        started_us,
        started_us + int(took_s * 1_000_000),
        x.account,
        x.api.value,
        outcome,
        x.status,
        None if x.failure is None else x.failure.row.code,
        x.principal.virtual_key,
        None if plan is None else plan.route,
        provider,
        model,
        x.streamed,
        len(x.attempts),
        x.target is not None and plan is not None and x.target is not plan.targets[0],
        used.input_tokens,
        used.cached_tokens,
        used.cache_write_tokens,
        used.output_tokens,
        used.reasoning_tokens,
        used.estimated,
        cost_of(x),
        cost_source_of(x),
        x.saved_nanousd,
        None if bill is None else _baseline(x, runtime, bill),
        x.cache,
        None if x.first_event_at is None else round((x.first_event_at - x.started) * 1000, 3),
        round(took_s * 1000, 3),
        _request_id(x),
        tags_of(x),
    )


def _answered_by(x: Exchange) -> tuple[ProviderId | None, str | None]:
    """Whose answer it was, and the model as a row may have it: one that a client named may be a key in the wrong field."""
    if x.recalled is not None:
        model = x.recalled.model
        return x.recalled.provider, model if _is_route(x) else redact.text(model)
    target = x.target or (x.attempts[-1].target if x.attempts else None)
    if target is None:
        return None, None
    return target.provider.id, target.model if _is_route(x) else target.masked_model


def _is_route(x: Exchange) -> bool:
    """Whether a route was asked for: then its models are ours to name."""
    return x.plan is not None and x.plan.route is not None


def tags_of(x: Exchange) -> Tags:
    """The virtual key's own, and the request's: who shares a key out says which team's it is, and nobody else."""
    header = x.headers.get("x-penstock-tags")
    own = x.principal.tags
    return own if header is None else joined(own, parse(header)) if own else parse(header)


def _request_id(x: Exchange) -> ExchangeId | None:
    return None if x.id == x.booked_as else x.id


def cost_of(x: Exchange) -> NanoUsd:
    """What the exchange costs: the answer that was relayed, and what attempts before it may have used."""
    answered = 0 if x.bill is None else x.bill.charge.cost_nanousd
    return NanoUsd(answered + x.wasted_nanousd)


def cost_source_of(x: Exchange) -> CostSource:
    """Where its cost is known from. No figure of a provider's stands for what failed attempts may have used."""
    if x.wasted_nanousd:
        return "estimated"
    return "free" if x.bill is None else x.bill.charge.source.value


def _baseline(x: Exchange, runtime: Runtime, bill: Bill) -> NanoUsd | None:
    """What the same tokens would have cost with the model that reports compare with."""
    target = runtime.table.baseline
    if target is None or x.api in (Api.COUNT_TOKENS, Api.PASSTHROUGH) or x.commitment is not Commitment.COMPLETE:
        return None
    tariff = runtime.terms(x.account, None, target).price.tariff
    return cost.cost(bill.used, tariff, x.admitted_ms // 1000) if isinstance(tariff, Tariff) else None
