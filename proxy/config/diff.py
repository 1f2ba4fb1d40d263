"""What one routing table changes of another, in words, for the log and for whoever asked for a reload.

Pure. Names and counts alone: an address, a credential or an alert's URL may be a secret, so of those it is said that they
changed, and not to what.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from proxy.core.pricing import Pricing
from proxy.core.routing import Provider, Route, RoutingTable

CHANGES_MAX: Final = 100  # lines that are told; one more says how many there are besides
_TARGETS_TOLD: Final = 6
# What has lines of its own, or follows from what has.
_APART: Final = frozenset({"providers", "routes", "models", "pricing", "views", "demo", "account", "open_access"})
_OF_PROVIDER: Final = {
    "base_url": "address",
    "urls": "address",
    "models_url": "address",
    "auth": "credentials",
    "key_vars": "credentials",
    "inactive": "",  # said as its state
}
_OF_TABLE: Final = {"cors_origins": "cors", "ledger_keep_days": "ledger.keep_days"}


def changes(before: RoutingTable, after: RoutingTable) -> tuple[str, ...]:
    """A line for each thing that is another; none where the tables do the same."""
    found = [*_changes(before, after), *_accounts(before, after)]
    more = len(found) - CHANGES_MAX
    return (*found[:CHANGES_MAX], f"and {more} more") if more > 0 else tuple(found)


def _changes(before: RoutingTable, after: RoutingTable) -> Iterator[str]:
    yield from _named("route", before.routes, after.routes, _of_route)
    yield from _named("provider", before.providers, after.providers, _of_provider)
    yield from _named("model", before.models, after.models, _of_model)
    yield from _of_pricing(before.pricing, after.pricing)
    if before.open_access != after.open_access:
        yield f"access: {'open' if after.open_access else 'keys'}, was {'open' if before.open_access else 'keys'}"
    for one in fields(RoutingTable):
        if one.compare and one.name not in _APART and getattr(before, one.name) != getattr(after, one.name):
            yield f"{_OF_TABLE.get(one.name, one.name)} changed"


def _accounts(before: RoutingTable, after: RoutingTable) -> Iterator[str]:
    """Of accounts with routes or providers of their own, what is not so for all."""
    for_all = set(_changes(before, after))
    for account in dict.fromkeys([*before.views, *after.views]):
        own = _changes(before.of(account), after.of(account))
        yield from (f"account {account}: {line}" for line in own if line not in for_all)


def _named(what: str, before: Mapping[Any, Any], after: Mapping[Any, Any], compare: Any) -> Iterator[str]:
    yield from (f"{what} {name}: removed" for name in before if name not in after)
    for name, new in after.items():
        if name not in before:
            yield f"{what} {name}: added"
            continue
        told = list(compare(before[name], new))
        if told:
            yield f"{what} {name}: {'; '.join(told)}"


def _of_route(before: Route, after: Route) -> Iterator[str]:
    if before.enabled != after.enabled:
        yield "switched on" if after.enabled else "switched off"
    if _targets(before) != _targets(after):
        yield f"served by {_listed(after)}, was {_listed(before)}"
    elif [(tier.balance, tier.weights) for tier in before.tiers] != [
        (tier.balance, tier.weights) for tier in after.tiers
    ]:
        yield "balance"
    for one in fields(Route):
        if one.name not in ("tiers", "enabled") and getattr(before, one.name) != getattr(after, one.name):
            yield one.name


def _targets(route: Route) -> list[list[str]]:
    return [[target.name for target in tier.targets] for tier in route.tiers]


def _listed(route: Route) -> str:
    names = [target.name for target in route.targets]
    more = len(names) - _TARGETS_TOLD
    return ", ".join(names[:_TARGETS_TOLD]) + (f" and {more} more" if more > 0 else "")


def _of_provider(before: Provider, after: Provider) -> Iterator[str]:
    if before.inactive is None and after.inactive is not None:
        yield f"inactive, {after.inactive}"
    elif before.inactive is not None and after.inactive is None:
        yield "active"
    changed = [one.name for one in fields(Provider) if getattr(before, one.name) != getattr(after, one.name)]
    yield from filter(None, dict.fromkeys(_OF_PROVIDER.get(name, name) for name in changed))


def _of_model(before: str, after: str) -> Iterator[str]:
    if before != after:
        yield f"{after}, was {before}"


def _of_pricing(before: Pricing, after: Pricing) -> Iterator[str]:
    """Without the price lists themselves: they are of the release, and are there for whoever is active."""
    for name in before.providers.keys() & after.providers.keys():
        if before.providers[name] != after.providers[name]:
            yield f"provider {name}: prices"
    for route in before.routes.keys() & after.routes.keys():
        if before.routes[route] != after.routes[route]:
            yield f"route {route}: what it may cost"
    if _rest(before) != _rest(after):
        yield "cost tiers or currency changed"


def _rest(pricing: Pricing) -> Pricing:
    return replace(pricing, providers={}, routes={}, lists={}, edition="")
