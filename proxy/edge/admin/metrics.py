"""`GET /metrics` behind the admin key; on a port of its own `edge/metrics_page` serves the same without one."""

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.edge.admin.endpoint import Ask, Page


async def shown(ask: Ask) -> Page:
    exposition = ask.runtime.exposition
    if exposition is None:
        raise Rejected(Failure(FailureKind.UNKNOWN_PATH, "This process counts nothing, so it has no metrics."))
    return Page(*await exposition.page(ask.accept))
