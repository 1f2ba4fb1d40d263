"""`GET /health`: which providers could serve now, from what is known already. It asks no provider anything."""

import orjson

from proxy.core.routing import RoutingTable


def health_body(table: RoutingTable) -> tuple[int, bytes]:
    """Status and body: 200 where some provider is active, 503 `unconfigured` where none is."""
    providers = {
        provider.id: {"state": "active"}
        if provider.inactive is None
        else {"state": "inactive", "reason": provider.inactive}
        for provider in table.providers.values()
    }
    active = any(provider.inactive is None for provider in table.providers.values())
    status = "ok" if active else "unconfigured"
    return 200 if active else 503, orjson.dumps({"status": status, "providers": providers})
