"""`GET /v1/models` and `/v1/models/{id}`, in OpenAI's shapes."""

from typing import Any

import orjson

from proxy.core.routing import Plan, RoutingTable, listing, plan
from proxy.terms import Api

# OpenAI's shape has a creation time; routes have none, and a constant keeps the listing the same between restarts.
_CREATED = 1_700_000_000


def models_body(table: RoutingTable) -> bytes:
    """Every name that a request may use now: routes first, then direct targets."""
    return orjson.dumps({"object": "list", "data": [_model(name, owner) for name, owner in listing(table)]})


def model_body(table: RoutingTable, name: str) -> bytes | None:
    """One model's object; None where no request could use that name, listed or not."""
    for known, owner in listing(table):
        if known == name:
            return orjson.dumps(_model(known, owner))
    for api in Api:
        found = plan(table, name, api)
        if isinstance(found, Plan):
            return orjson.dumps(_model(name, found.targets[0].provider.id))
    return None


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}
