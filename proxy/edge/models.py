"""`GET /v1/models` and `/v1/models/{id}`, in OpenAI's shapes."""

from collections.abc import Iterator
from typing import Any

import orjson

from proxy.core.principal import Principal
from proxy.core.routing import Plan, RoutingTable, listing, meant, plan
from proxy.terms import Api

# OpenAI's shape has a creation time; routes have none, and a constant keeps the listing the same between restarts.
_CREATED = 1_700_000_000


def models_body(table: RoutingTable, principal: Principal) -> bytes:
    """Every name that the principal's requests may use now: routes first, then direct targets."""
    return orjson.dumps({"object": "list", "data": [_model(name, owner) for name, owner in usable(table, principal)]})


def model_body(table: RoutingTable, principal: Principal, name: str) -> bytes | None:
    """One model's object; None where no request of the principal could use that name, listed or not."""
    for known, owner in usable(table, principal):
        if known == name:
            return orjson.dumps(_model(known, owner))
    for api in Api:
        found = plan(table, name, api)
        if isinstance(found, Plan) and principal.may_use(meant(table, name)):
            return orjson.dumps(_model(name, found.targets[0].provider.id))
    return None


def usable(table: RoutingTable, principal: Principal) -> Iterator[tuple[str, str]]:
    """The names, each with who owns it."""
    for name, owner in listing(table):
        if principal.may_use(meant(table, name)):
            yield name, owner


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}
