"""`/admin/cache`: how full the cache is and what it does, and how to make it forget."""

from collections.abc import Awaitable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from proxy.core import cache_selector, tags
from proxy.core import currency as currencies
from proxy.core.cache_selector import Selector
from proxy.core.currency import USD, figure
from proxy.core.event import EventKind
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.glob import Glob
from proxy.core.nearest import did_you_mean
from proxy.core.routing import Route
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.edge.admin.own import account_asked
from proxy.ports import StoreAway
from proxy.terms import AccountId, RouteName

MEMBERS: Final = frozenset({"route", "tag", "account", "pattern", "all"})
TEXT_CHARS_MAX: Final = 512  # as long as a name that a client may ask for
AGAIN_S: Final = 5.0

# What is told, and what an exchange's cache state is.
_COUNTS: Final = {
    "hits": "hit",
    "coalesced": "coalesced",
    "misses": "miss",
    "refreshed": "refresh",
    "bypassed": "bypass",
}
_FOUND: Final = ("hit", "coalesced")
_LOOKED_FOR: Final = (*_FOUND, "miss", "refresh")

_Result = TypeVar("_Result")


async def shown(ask: Ask) -> dict[str, Any]:
    """What the store holds (None while it is away), what this process has done since it started, and which routes keep."""
    runtime = ask.runtime
    try:
        stats, away = await runtime.cache.stats(), None
    except StoreAway as error:
        stats, away = None, str(error)
    counts, saved, currency = runtime.recalls.counts, runtime.recalls.saved_nanousd, runtime.table.pricing.currency
    looked_for = sum(counts[state] for state in _LOOKED_FOR)
    return {
        "where": runtime.cache.where,
        "away": away,
        "entries": None if stats is None else stats.entries,
        "bytes": None if stats is None else stats.bytes,
        "bytes_max": None if stats is None else stats.bytes_max,
        **{name: counts[state] for name, state in _COUNTS.items()},
        "hit_rate": round(sum(counts[state] for state in _FOUND) / looked_for, 6) if looked_for else None,
        "saved_nanousd": saved,
        "saved_usd": figure(saved, USD),
        "saved": figure(saved, currency),
        "currency": currencies.document(currency),
        "routes": [_route(route) for route in runtime.table.routes.values() if route.cache is not None],
    }


def _route(route: Route) -> dict[str, Any]:
    kept = route.cache
    assert kept is not None  # noqa: S101 - only those
    replay = "paced" if kept.paced else "immediate"
    return {"route": route.name, "ttl_s": kept.ttl_s, "tool_calls": kept.tool_calls, "replay": replay}


async def invalidate(ask: Ask) -> dict[str, Any]:
    """Serve nothing any more of what all given members select. ``hint``: where the route is none of the table's."""
    selector = _selector(ask.body, ask.account)
    dropped = await _reached(ask.runtime.cache.invalidate(selector))
    if ask.runtime.events is not None:
        ask.runtime.events.emit(
            EventKind.CACHE,
            act="invalidated",
            dropped=dropped,
            route=selector.route,
            tag=selector.tag,
            account=selector.account,
        )
    told: dict[str, Any] = {"invalidated": dropped, "selector": cache_selector.told(selector)}
    routes = ask.runtime.table.routes
    if selector.route is not None and selector.route not in routes:
        told["hint"] = f"There is no route {selector.route!r} now.{did_you_mean(selector.route, routes)}"
    return told


def _selector(body: Mapping[str, Any], bound: AccountId | None) -> Selector:
    """Raises `Rejected`: who forgets to say which is not taken to mean all. ``bound``: only its answers are meant."""
    if not body:
        raise bad(
            f"Say which answers: {', '.join(sorted(MEMBERS - {'all'}))}, or all: true. What is given must all hold."
        )
    if "all" in body and (body["all"] is not True or len(body) > 1):
        raise bad("'all' must be true and stand alone: beside it nothing else selects.", "all")
    route, account, pattern = (_text(body, name) for name in ("route", "account", "pattern"))
    return Selector(
        route=None if route is None else RouteName(route),
        tag=_tag(body),
        account=account_asked(bound, account),
        pattern=None if pattern is None else Glob.of(pattern),
    )


def _text(body: Mapping[str, Any], name: str) -> str | None:
    if name not in body:
        return None
    given = body[name]
    if not isinstance(given, str) or not 0 < len(given) <= TEXT_CHARS_MAX:
        raise bad(f"'{name}' must be a text of 1 to {TEXT_CHARS_MAX} characters.", name)
    return given


def _tag(body: Mapping[str, Any]) -> str | None:
    """As an answer has it: read as the header is in which it came."""
    given = _text(body, "tag")
    if given is None:
        return None
    found = tags.tags_from([given.partition("=")[::2]])
    if "=" not in given or not found:
        raise bad("'tag' must be name=value, as in x-penstock-tags: team=search.", "tag")
    ((name, value),) = found
    return f"{name}={value}"


async def _reached(answer: Awaitable[_Result]) -> _Result:
    try:
        return await answer
    except StoreAway as away:
        _refuse(away)


def _refuse(away: StoreAway) -> NoReturn:
    message = (
        f"The cache's store cannot be reached: {str(away).rstrip('.')}. Nothing is served from it now; what it holds may "
        "be served again when it is back, so ask again then."
    )
    raise Rejected(Failure(FailureKind.STORE_UNAVAILABLE, message, retry_after_s=AGAIN_S)) from None
