"""What `penstock serve` prints when its socket is open: what can serve, and a line to try it with."""

from collections.abc import Iterator
from typing import Any

from proxy.core.routing import Route, RoutingTable

_TARGETS_SHOWN = 4


def announcement(table: RoutingTable, url: str, make_key: str | None = None) -> str:
    """One table of routes and providers, then lines that work as they are printed.

    ``make_key``: the command that makes a virtual key; None where nobody needs one.
    """
    return "\n".join([*_routes(table), "", *_providers(table), "", *_invitation(table, url, make_key), ""])


def document(table: RoutingTable, url: str) -> dict[str, Any]:
    """The same, for scripts."""
    return {
        "url": url,
        "demo": table.demo is not None,
        "routes": {
            route.name: [target.name for target in route.targets if target.provider.inactive is None]
            for route in table.routes.values()
            if route.enabled
        },
        "providers": {one.id: one.inactive for one in table.providers.values()},
    }


def _routes(table: RoutingTable) -> Iterator[str]:
    width = max((len(name) for name in table.routes), default=0)
    yield f"{'route':<{width}}  served by, in order"
    for route in table.routes.values():
        yield f"{route.name:<{width}}  {_served_by(route)}"


def _served_by(route: Route) -> str:
    if not route.enabled:
        return "switched off"
    active = [target.name for target in route.targets if target.provider.inactive is None]
    if not active:
        return "nothing: no provider of it is active"
    more = len(active) - _TARGETS_SHOWN
    return ", ".join(active[:_TARGETS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _providers(table: RoutingTable) -> Iterator[str]:
    width = max((len(provider_id) for provider_id in table.providers), default=0)
    yield f"{'provider':<{width}}  state"
    for provider in table.providers.values():
        state = "active" if provider.inactive is None else f"inactive: {provider.inactive}"
        yield f"{provider.id:<{width}}  {state}"


def _invitation(table: RoutingTable, url: str, make_key: str | None) -> Iterator[str]:
    model = _example(table)
    yield f"Penstock serves on {url}"
    if table.demo is not None:
        yield "Demo mode: the built-in simulator answers where no provider is active. Set a provider's key for real answers."
    if make_key is not None:
        yield "Callers show a key; this makes one:"
        yield f"  export OPENAI_API_KEY=$({make_key})"
    shown = "" if make_key is None else """-H "authorization: Bearer $OPENAI_API_KEY" """
    yield "Try it:"
    yield (
        f"""  curl -sN {url}/chat/completions {shown}-H 'content-type: application/json' """
        f"""-d '{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'"""
    )
    yield "Point any OpenAI SDK or tool at it:"
    yield f"  export OPENAI_BASE_URL={url}{' OPENAI_API_KEY=anything' if make_key is None else ''}"


def _example(table: RoutingTable) -> str:
    usable = [
        route.name
        for route in table.routes.values()
        if route.enabled and any(target.provider.inactive is None for target in route.targets)
    ]
    return "general" if "general" in usable else usable[0] if usable else "general"
