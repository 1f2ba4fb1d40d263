"""What the books are told of an exchange: the intent before an attempt, the row when it is over."""

from proxy.core import cost, redact
from proxy.core.ledger import CostSource, Intent, LedgerRow, Outcome
from proxy.core.routing import Plan
from proxy.core.tags import Tags, joined, parse
from proxy.core.tariff import Tariff
from proxy.phases.exchange import Attempt, Bill, Exchange
from proxy.phases.runtime import Runtime
from proxy.terms import Api, Commitment, ExchangeId, NanoUsd, ProviderId

_US_PER_MS = 1000


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
        _nameable(x, target.model),
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
    bill = x.bill
    used = None if bill is None else bill.used
    took_s = now - x.started
    return LedgerRow(
        id=x.booked_as,
        started_us=x.admitted_ms * _US_PER_MS,
        ended_us=x.admitted_ms * _US_PER_MS + int(took_s * 1_000_000),
        account=x.account,
        virtual_key=x.principal.virtual_key,
        api=x.api.value,
        outcome=outcome,
        status=x.status,
        code=None if x.failure is None else x.failure.row.code,
        route=None if x.plan is None else x.plan.route,
        provider=provider,
        model=None if model is None else _nameable(x, model),
        streamed=x.streamed,
        attempts=len(x.attempts),
        fell_back=x.target is not None and x.plan is not None and x.target is not x.plan.targets[0],
        input_tokens=0 if used is None else used.input_tokens,
        cached_tokens=0 if used is None else used.cached_tokens,
        cache_write_tokens=0 if used is None else used.cache_write_tokens,
        output_tokens=0 if used is None else used.output_tokens,
        reasoning_tokens=0 if used is None else used.reasoning_tokens,
        estimated=used is not None and used.estimated,
        cost_nanousd=cost_of(x),
        cost_source=cost_source_of(x),
        saved_nanousd=x.saved_nanousd,
        cache=x.cache,
        baseline_nanousd=None if bill is None else _baseline(x, runtime, bill),
        first_event_ms=None if x.first_event_at is None else round((x.first_event_at - x.started) * 1000, 3),
        total_ms=round(took_s * 1000, 3),
        tags=tags_of(x),
        request_id=_request_id(x),
    )


def _answered_by(x: Exchange) -> tuple[ProviderId | None, str | None]:
    if x.recalled is not None:
        return x.recalled.provider, x.recalled.model
    target = x.target or (x.attempts[-1].target if x.attempts else None)
    return (None, None) if target is None else (target.provider.id, target.model)


def _nameable(x: Exchange, model: str) -> str:
    """A model as a row may have it. A route's is ours to name; one that a client named may be a key in the wrong field."""
    return model if x.plan is not None and x.plan.route is not None else redact.text(model)


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
    return NanoUsd(answered + sum(attempt.wasted_nanousd for attempt in x.attempts))


def cost_source_of(x: Exchange) -> CostSource:
    """Where its cost is known from. No figure of a provider's stands for what failed attempts may have used."""
    if any(attempt.wasted_nanousd for attempt in x.attempts):
        return "estimated"
    return "free" if x.bill is None else x.bill.charge.source.value


def _baseline(x: Exchange, runtime: Runtime, bill: Bill) -> NanoUsd | None:
    """What the same tokens would have cost with the model that reports compare with."""
    target = runtime.table.baseline
    if target is None or x.api in (Api.COUNT_TOKENS, Api.PASSTHROUGH) or x.commitment is not Commitment.COMPLETE:
        return None
    tariff = runtime.terms(x.account, None, target).price.tariff
    return cost.cost(bill.used, tariff, x.admitted_ms // 1000) if isinstance(tariff, Tariff) else None
