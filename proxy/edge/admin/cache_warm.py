"""`POST /admin/cache/warm`: requests are answered as if a client had sent them, so that their answers are in the cache.

Each is an exchange of its own, with a row in the ledger and its cost; only its client is missing. When who asked for the
warm-up leaves, what is under way is cancelled as for a client that leaves.
"""

from typing import Any, Final

from proxy.core.failure import Failure
from proxy.core.principal import Principal, account_of
from proxy.core.request_id import new_id
from proxy.core.routing import plan
from proxy.edge import warm_request
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.edge.unheard import Unheard
from proxy.edge.warm_request import WarmRequest
from proxy.edge.warm_up import CONCURRENCY, CONCURRENCY_MAX, Answered, warm_up
from proxy.phases import lifecycle
from proxy.phases.ask import NOT_WRITABLE
from proxy.phases.exchange import Exchange
from proxy.phases.runtime import Runtime
from proxy.terms import DEFAULT_ACCOUNT, AccountId

MEMBERS: Final = frozenset({"requests", "concurrency", "account"})
REQUESTS_MAX: Final = 1000


async def warm(ask: Ask) -> dict[str, Any]:
    """How many answers are in the cache by this, how many were before, how many are not, and of the first of those why."""
    requests, concurrency = _requests(ask.body.get("requests")), _concurrency(ask.body.get("concurrency", CONCURRENCY))
    principal = Principal(_account(ask.body.get("account", DEFAULT_ACCOUNT)))
    tally = await warm_up(enumerate(requests), lambda one: _sent(ask.runtime, principal, one), concurrency=concurrency)
    return tally.document("request")


def _requests(given: object) -> list[WarmRequest]:
    """Raises `Rejected`, before anything is sent."""
    if not isinstance(given, list) or not 0 < len(given) <= REQUESTS_MAX:
        raise bad(f"'requests' must be a list of 1 to {REQUESTS_MAX} requests.", "requests")
    return [_read(place, one) for place, one in enumerate(given)]


def _read(place: int, given: object) -> WarmRequest:
    found = warm_request.read(given)
    if isinstance(found, str):
        raise bad(f"requests[{place}]: {found}", "requests")
    return found


def _concurrency(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= CONCURRENCY_MAX:
        return given
    raise bad(f"'concurrency' must be a whole number from 1 to {CONCURRENCY_MAX}.", "concurrency")


def _account(given: object) -> AccountId:
    """Raises `Rejected`."""
    account = account_of(given) if isinstance(given, str) else None
    if account is None:
        raise bad("'account' must be up to 64 letters, digits, '.', '_' and '-'.", "account")
    return account


async def _sent(runtime: Runtime, principal: Principal, request: WarmRequest) -> Answered:
    planned = plan(runtime.table.of(principal.account), request.model, request.api)
    if not isinstance(planned, Failure) and planned.cache is None:
        return Answered(None, "off")  # it would be paid for, and kept nowhere
    if runtime.books.trouble is not None:
        return Answered(None, failed=NOT_WRITABLE)
    downstream = Unheard(request.body)
    own_id = new_id(runtime.rng)
    headers, admitted_ms = downstream.headers, int(runtime.wall() * 1000)
    x = Exchange(own_id, own_id, request.api, "POST", request.path, headers, runtime.now(), admitted_ms)
    x.principal, x.is_identified = principal, True
    await lifecycle.run(x, runtime, downstream)
    if x.failure is not None:
        return Answered(x.status, failed=x.failure.message, code=x.failure.row.code)
    if downstream.is_broken:
        return Answered(x.status, failed="Its answer broke off.")
    return Answered(x.status, downstream.sent.get("x-penstock-cache"))
