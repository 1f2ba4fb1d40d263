"""Phase 4, plan: which targets, in which order, and until when? Pure but for the clock."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from proxy.core import balance, cost, redact, routing
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.routing import Plan, RoutingTable, Target
from proxy.core.tariff import Price
from proxy.phases.accept import requested_timeout_s
from proxy.phases.exchange import Exchange
from proxy.phases.identify import allowed, without_hints
from proxy.phases.runtime import Runtime
from proxy.terms import Api, NanoUsd

_STATEFUL = ("previous_response_id", "conversation", "background")


def plan(x: Exchange, runtime: Runtime) -> Plan:
    """Find the exchange's plan and deadline. Raises `Rejected`."""
    only = x.headers.get("x-penstock-provider") or None
    table = runtime.table.of(x.account)
    if x.api is Api.PASSTHROUGH:
        made = routing.passthrough_plan(table, only)
    else:
        made = routing.plan(table, x.asked, x.api, only=only)
    if isinstance(made, Failure):
        raise Rejected(without_hints(x, made))
    found = allowed(x, table, made)
    if x.api is Api.RESPONSES and _is_stateful(x):
        # What the request refers to is stored at one provider: another one could only misunderstand it.
        home = found.targets[0].provider.id
        left = tuple(target for target in found.targets if target.provider.id == home)
        found = replace(found, targets=left, tiers=())
    if found.tiers:
        ordered = balance.order(
            *(found.tiers, runtime.speeds, runtime.rng, x.started),
            streamed=x.streamed,
            affinity=partial(_affinity, x),
            rank=partial(_ranked, table, int(runtime.wall()), found),
        )
        found = replace(found, targets=ordered)
    x.cost_tier = _asked_tier(x, runtime)
    total_s = found.timeouts.total_s
    asked_s = requested_timeout_s(x)
    x.hurried = asked_s is not None and asked_s < total_s
    x.total_at = x.started + (asked_s if asked_s is not None and x.hurried else total_s)
    x.plan = found
    return found


def _asked_tier(x: Exchange, runtime: Runtime) -> tuple[str, NanoUsd] | None:
    """What `x-penstock-tier` says that this request may cost at most."""
    given = x.headers.get("x-penstock-tier")
    if given is None:
        return None
    name = given.strip()
    ceiling = runtime.table.pricing.ceiling(name)
    if ceiling is None:
        known = ", ".join(runtime.table.pricing.cost_tier_names())
        message = f"x-penstock-tier must name a cost tier ({known}), got {redact.cut(name, 40)!r}."
        raise Rejected(Failure(FailureKind.BAD_REQUEST, message))
    return name, ceiling


def _affinity(x: Exchange) -> bytes:
    """What requests of one account share that are best sent to one target."""
    prefix = balance.prompt_prefix(x.body.fields) if x.body is not None else b""
    return f"{x.account}\n".encode() + prefix


def _ranked(table: RoutingTable, at: int, plan: Plan, targets: Sequence[Target]) -> Sequence[Target]:
    def price(target: Target) -> Price:
        return table.pricing.terms(plan.route, target.provider.id, target.model).price

    return cost.rank(targets, price, at)


def _is_stateful(x: Exchange) -> bool:
    return x.body is not None and any(x.body.fields.get(name) for name in _STATEFUL)
