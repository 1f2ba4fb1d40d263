"""The one table of admin endpoints. What is not here is not served, and what is here has a role.

A path with a step that stands for any (`{id}`) comes after the ones that name it. `tests/edge/admin_table.txt` is this table
as it was last agreed on.
"""

from typing import Final

from proxy.edge import warm_up
from proxy.edge.admin import (
    analytics,
    audit,
    breakers,
    budgets,
    cache,
    cache_warm,
    configuration,
    events,
    keys,
    ledger,
    limits,
    metrics,
    standing,
)
from proxy.edge.admin.endpoint import Endpoint
from proxy.terms import Role

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/admin/analytics/forecast",
        Role.VIEWER,
        analytics.forecast,
        query=frozenset({"horizon_days", "account"}),
        per_account=True,
    ),
    Endpoint(
        "GET",
        "/admin/analytics/summary",
        Role.VIEWER,
        analytics.summary,
        query=frozenset({"days", "account"}),
        per_account=True,
    ),
    Endpoint("GET", "/admin/audit", Role.VIEWER, audit.entries, query=audit.QUERY, per_account=True),
    Endpoint("GET", "/admin/breakers", Role.VIEWER, breakers.listed, per_account=True),
    Endpoint(
        "POST",
        "/admin/breakers/reset",
        Role.ADMIN,
        breakers.reset,
        members=frozenset({"target"}),
        recorded=frozenset({"target", "reset"}),
    ),
    Endpoint("GET", "/admin/budgets", Role.VIEWER, budgets.listed, query=frozenset({"account"}), per_account=True),
    Endpoint("GET", "/admin/cache", Role.VIEWER, cache.shown),
    Endpoint(
        "POST",
        "/admin/cache/invalidate",
        Role.ADMIN,
        cache.invalidate,
        members=cache.MEMBERS,
        recorded=cache.MEMBERS | {"invalidated", "selector"},
        per_account=True,
    ),
    Endpoint(
        "POST",
        "/admin/cache/warm",
        Role.ADMIN,
        cache_warm.warm,
        members=cache_warm.MEMBERS,
        recorded=frozenset({"concurrency", *(one.value for one in warm_up.Outcome)}),
    ),
    Endpoint("GET", "/admin/config", Role.VIEWER, configuration.shown),
    Endpoint("POST", "/admin/config/reload", Role.ADMIN, configuration.reload, recorded=frozenset({"changes"})),
    Endpoint("GET", "/admin/events", Role.VIEWER, events.followed),
    Endpoint("GET", "/admin/keys", Role.VIEWER, keys.listed, query=keys.QUERY, per_account=True),
    Endpoint(
        "POST", "/admin/keys", Role.ADMIN, keys.create, members=keys.CREATE, recorded=keys.CREATE, per_account=True
    ),
    Endpoint("DELETE", "/admin/keys/{id}", Role.ADMIN, keys.revoke, per_account=True),
    Endpoint("GET", "/admin/keys/{id}", Role.VIEWER, keys.shown, per_account=True),
    Endpoint(
        "PATCH",
        "/admin/keys/{id}",
        Role.ADMIN,
        keys.change,
        members=keys.CHANGE,
        recorded=keys.CHANGE,
        per_account=True,
    ),
    Endpoint(
        *("POST", "/admin/keys/{id}/rotate", Role.ADMIN, keys.rotate),
        members=keys.ROTATE,
        recorded=keys.ROTATE,
        per_account=True,
    ),
    Endpoint("GET", "/admin/ledger", Role.VIEWER, ledger.rows, query=ledger.QUERY, per_account=True),
    Endpoint("GET", "/admin/ledger/{id}", Role.VIEWER, ledger.one, per_account=True),
    Endpoint("GET", "/admin/limits", Role.VIEWER, limits.listed, query=frozenset({"account"}), per_account=True),
    Endpoint(
        *("POST", "/admin/limits/reset", Role.ADMIN, limits.reset),
        members=frozenset({"subject"}),
        recorded=frozenset({"subject"}),
    ),
    Endpoint("GET", "/admin/providers", Role.VIEWER, standing.providers, per_account=True),
    Endpoint("GET", "/admin/routes", Role.VIEWER, standing.routes, per_account=True),
    Endpoint("GET", "/metrics", Role.VIEWER, metrics.shown),
)
