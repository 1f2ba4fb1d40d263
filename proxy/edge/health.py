"""`GET /health`: who could serve now, from what is known already. It asks nobody anything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.core.breaker import State, Subject, credential_subject, target_subject
from proxy.core.routing import Provider, RoutingTable, Target
from proxy.core.store_mode import TABLE, Function, Standing
from proxy.phases.breakers import View
from proxy.phases.probe import Check
from proxy.phases.runtime import Runtime
from proxy.ports import BooksState, StoreState
from proxy.terms import ProviderId


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of the world beyond the table, kept by whoever finds it out."""

    checks: Mapping[ProviderId, Check] = field(default_factory=dict)
    stores: Callable[[], Mapping[str, StoreState]] = dict
    books: Callable[[], BooksState] | None = None
    modes: Callable[[], Mapping[Function, Standing]] = dict


def health_body(runtime: Runtime, outlook: Outlook, *, strict: bool) -> tuple[int, bytes]:
    """Status and body.

    503 where no active target can serve, `unconfigured` where there is none. ``strict``: where any active provider is
    unhealthy too. Public, so errors are kinds and no messages.
    """
    views = {view.subject: view for view in runtime.breakers.snapshot(runtime.wall())}
    providers = {
        provider.id: _provider(provider, outlook.checks.get(provider.id), views)
        for provider in runtime.table.providers.values()
    }
    status = _status(runtime.table, providers, views)
    ok = status == "ok" or (status == "degraded" and not strict)
    stores = {name: {"state": "up" if store.up else "away"} for name, store in outlook.stores().items()}
    functions = {function.value: _function(function, one) for function, one in outlook.modes().items()}
    told = {"status": status, "providers": providers, "stores": stores, "functions": functions}
    told |= {**_money(runtime, outlook), **_keys(runtime)}
    return 200 if ok else 503, orjson.dumps(told)


def _function(function: Function, standing: Standing) -> dict[str, Any]:
    """``meaning``: what is met with meanwhile; None while nothing is wrong."""
    since = None if standing.since is None else round(standing.since, 3)
    row = TABLE[function]
    meaning = None if standing.why is None else row.worst if standing.mode is row.at_worst else row.meaning
    mode = standing.mode.value
    return {"mode": mode, "store": standing.where, "since": since, "why": standing.why, "meaning": meaning}


def _money(runtime: Runtime, outlook: Outlook) -> dict[str, Any]:
    """Where the books stand. Public, so without addresses, and without the messages of a store."""
    if outlook.books is None:
        return {}
    books = outlook.books()
    ledger = {"state": books.state, "away_s": books.away_s, "waiting_rows": books.waiting_rows}
    return {
        "ledger": ledger,
        "budgets": {"state": "local" if runtime.budgets.away else "ok"},
        "limits": {"state": "local" if runtime.limits.away else "ok"},
    }


def _keys(runtime: Runtime) -> dict[str, Any]:
    """Whether virtual keys can be verified, and how old what is known of them is."""
    if runtime.keys is None:
        return {}
    ring = runtime.keys.state
    state = "refusing" if not ring.is_good else "ok" if ring.error is None else "away"
    return {"keys": {"state": state, "age_s": None if ring.age_s is None else round(ring.age_s, 1)}}


def _provider(
    provider: Provider, check: Check | None, views: Mapping[Subject, View]
) -> dict[str, str | float | bool | None]:
    if provider.inactive is not None:
        return {"state": "inactive", "reason": provider.inactive}
    credentials = [credential_subject(provider.id, credential.value) for credential in provider.credentials]
    own = [view for subject, view in views.items() if subject in credentials or subject.startswith(f"{provider.id}/")]
    shut = [view for view in own if view.state is not State.CLOSED]
    refused = bool(credentials) and all(one in views and views[one].state is State.OPEN for one in credentials)
    last_error = check.error if check is not None and check.error else next((view.last_error for view in shut), None)
    return {
        "state": "active",
        "healthy": not refused and (check is None or check.healthy),
        "latency_ms": None if check is None else round(check.latency_s * 1000, 1),
        "last_error": last_error or None,
        "checked_at": None if check is None else round(check.at, 3),
        "breaker": _worst(shut).value,
    }


def _worst(shut: list[View]) -> State:
    if any(view.state is State.OPEN for view in shut):
        return State.OPEN
    return State.HALF_OPEN if shut else State.CLOSED


def _status(
    table: RoutingTable, providers: Mapping[ProviderId, Mapping[str, Any]], views: Mapping[Subject, View]
) -> str:
    """Providers that accounts have for themselves are told to nobody here, and count where they could serve."""
    active = [told for told in providers.values() if told["state"] == "active"]
    if not table.is_active:
        return "unconfigured"
    healthy = {provider_id for provider_id, told in providers.items() if told.get("healthy")}
    targets = _targets(table)
    can = any(target.provider.id in healthy and not _is_open(target, views) for target in targets)
    own = [target for view in table.views.values() for target in _targets(view) if target.provider.owner is not None]
    can = can or any(_provider(one.provider, None, views)["healthy"] and not _is_open(one, views) for one in own)
    if not (can if targets or own else healthy or not active):
        return "down"
    return "ok" if len(healthy) == len(active) else "degraded"


def _targets(table: RoutingTable) -> list[Target]:
    """What routes name and could be asked."""
    routes = [route for route in table.routes.values() if route.enabled]
    return [target for route in routes for target in route.targets if target.provider.inactive is None]


def _is_open(target: Target, views: Mapping[Subject, View]) -> bool:
    view = views.get(target_subject(target.name, target.provider.owner))
    return view is not None and view.state is State.OPEN
