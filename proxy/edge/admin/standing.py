"""What is served: `GET /admin/providers`, `/admin/routes`. No credential is in what they tell."""

from typing import Any

from proxy.core import redact
from proxy.core.breaker import credential_subject
from proxy.core.routing import Provider, Route, Target
from proxy.edge.admin.endpoint import Ask


async def providers(ask: Ask) -> dict[str, Any]:
    return {"providers": [_provider(provider) for provider in ask.runtime.table.providers.values()]}


async def routes(ask: Ask) -> dict[str, Any]:
    return {"routes": [_route(route) for route in ask.runtime.table.routes.values()]}


def _provider(provider: Provider) -> dict[str, Any]:
    return {
        "id": provider.id,
        **_state(provider),
        "base_url": redact.text(provider.base_url, provider.secrets),
        "apis": [api.value for api in provider.urls],
        "key_variables": list(provider.key_vars),
        "credentials": [
            {"origin": one.origin, "breaker": credential_subject(provider.id, one.value)}
            for one in provider.credentials
        ],
        "local": provider.local,
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "name": route.name,
        "about": route.about,
        "enabled": route.enabled,
        "tiers": [
            {
                "targets": [_target(target) for target in tier.targets],
                "balance": None if tier.balance is None else tier.balance.value,
            }
            for tier in route.tiers
        ],
    }


def _target(target: Target) -> dict[str, Any]:
    return {"target": target.name, "provider": target.provider.id, "model": target.model, **_state(target.provider)}


def _state(provider: Provider) -> dict[str, str | None]:
    return {"state": "active" if provider.inactive is None else "inactive", "reason": provider.inactive}
