"""Phase 1, identify: who is calling? Before a byte of the body is read, and without asking a store."""

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.principal import Principal
from proxy.core.routing import Plan, RoutingTable, meant
from proxy.phases.exchange import Exchange
from proxy.phases.runtime import Runtime
from proxy.ports import Downstream
from proxy.terms import Api


def identify(x: Exchange, runtime: Runtime, downstream: Downstream) -> None:
    """Find the exchange's principal. Raises `Rejected`."""
    if not x.is_identified:
        x.principal = runtime.door.principal_of(downstream)
        x.is_identified = True
    if x.api is Api.PASSTHROUGH and not _may_pass(x.principal, runtime):
        message = (
            "This path belongs to no route, and is relayed for keys with the right 'passthrough' alone, "
            "and for none with a budget of its own or of its account: what it costs is not known."
        )
        raise Rejected(Failure(FailureKind.ROUTE_NOT_ALLOWED, message))


def _may_pass(principal: Principal, runtime: Runtime) -> bool:
    if runtime.door.is_open:
        return True
    return principal.passthrough and not principal.payers and principal.account not in runtime.table.budgets.accounts


def allowed(x: Exchange, table: RoutingTable, plan: Plan) -> Plan:
    """The plan, if its route or target is one that the principal may use. Raises `Rejected`."""
    if x.principal.routes is None or x.api is Api.PASSTHROUGH:
        return plan
    name = meant(table, plan.asked)
    if x.principal.may_use(name):
        return plan
    message = f"This key may not use {name[:80]!r}. GET /v1/models lists what it may."
    raise Rejected(Failure(FailureKind.ROUTE_NOT_ALLOWED, message, param="model"))


def without_hints(x: Exchange, failure: Failure) -> Failure:
    """What a plan failed with, and for a key that may not use everything no word of the rest."""
    if x.principal.routes is None or failure.kind is not FailureKind.MODEL_UNKNOWN:
        return failure
    message = f"The model {(x.asked or '')[:80]!r} is not one that this key may use. GET /v1/models lists those."
    return Failure(FailureKind.MODEL_UNKNOWN, message, param="model")
