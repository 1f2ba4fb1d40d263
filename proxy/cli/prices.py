"""What `penstock providers --prices` tells: what every configured target charges now, and where that is known from."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

import click

from proxy.cli.table import show
from proxy.config.pricing import with_price_list
from proxy.core.routing import RoutingTable, Target, configured
from proxy.core.tariff import DAY_S, Period, Price, Rates, Tariff, Tier, usd_per_million
from proxy.terms import RouteName

HEADERS: Final = ("TARGET", "INPUT", "OUTPUT", "CACHED", "BESIDES", "FROM", "SINCE")

_TOKENS: Final = (
    "input",
    "output",
    "cached",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
)
_FEES: Final = {"request": "a request", "image": "an image", "audio_minute": "a minute of audio", "search": "a search"}


class Shown(NamedTuple):
    """One target; ``route`` where that one has a price of its own for it."""

    target: Target
    route: RouteName | None
    price: Price


def show_all(table: RoutingTable, *, in_json: bool) -> None:
    """Print it: looked up now, for every provider that a target names, active or not."""
    table = with_price_list(table, {target.provider.id for target in configured(table)})
    at_s = int(time.time())
    at = datetime.fromtimestamp(at_s, UTC)
    if in_json:
        targets = [as_json(one, at_s) for one in shown(table)]
        told = {"at": at.isoformat(), "list": table.pricing.edition or None, "targets": targets}
        click.echo(json.dumps(told, indent=2))
        return
    edition = f"; list: {table.pricing.edition}" if table.pricing.edition else ""
    click.echo(f"USD for a million tokens, on {at:%Y-%m-%d %H:%M} UTC{edition}\n")
    show(HEADERS, [row(one, at_s) for one in shown(table)])


def shown(table: RoutingTable) -> list[Shown]:
    """Every configured target, once, and again for a route that prices it differently."""
    return list({(one.target.name, one.route): one for one in _shown(table)}.values())


def _shown(table: RoutingTable) -> Iterator[Shown]:
    pricing = table.pricing
    for target in configured(table):
        yield Shown(target, None, pricing.price(target.provider.id, target.model))
    for route in table.routes.values():
        for target in route.targets:
            own = pricing.terms(route.name, target.provider.id, target.model).price
            if own != pricing.price(target.provider.id, target.model):
                yield Shown(target, route.name, own)


def row(one: Shown, at_s: int) -> tuple[str, ...]:
    """A line of the table. Units: USD for a million tokens."""
    name = one.target.name if one.route is None else f"{one.target.name} (in {one.route})"
    tariff = one.price.tariff
    if not isinstance(tariff, Tariff):
        return (name, "", "", "", "", f"unknown: {tariff.why}", "")
    period = tariff.period(at_s)
    charged = period.tiers[0].rates
    return (
        name,
        usd_per_million(charged.input),
        usd_per_million(charged.output),
        usd_per_million(charged.cached) if charged.cached != charged.input else "",
        ", ".join(_besides(tariff, period, at_s)),
        one.price.source.value,
        _day(period) or "",
    )


def as_json(one: Shown, at_s: int) -> dict[str, object]:
    told = {"target": one.target.name, "route": one.route, "source": one.price.source.value}
    tariff = one.price.tariff
    if not isinstance(tariff, Tariff):
        return {**told, "unknown": tariff.why, "since": None, "price": None, "other_times": []}
    period = tariff.period(at_s)
    others = [other for other in tariff.periods if other is not period]
    return {
        **told,
        "unknown": None,
        "since": _day(period),
        "price": _period(period),
        "other_times": [{"since": _day(other), "daily": _hours(other), **_period(other)} for other in others],
    }


def _period(period: Period) -> dict[str, object]:
    first, *larger = period.tiers
    return {
        **_tier(first),
        "usd_each": {name: _pico(getattr(first.rates, name)) for name in _FEES},
        "usd_per_million_characters": usd_per_million(first.rates.character),
        "above": [{"input_tokens": tier.above, **_tier(tier)} for tier in larger],
    }


def _tier(tier: Tier) -> dict[str, object]:
    return {"usd_per_million_tokens": {name: usd_per_million(getattr(tier.rates, name)) for name in _TOKENS}}


def _besides(tariff: Tariff, period: Period, at_s: int) -> Iterator[str]:
    """What is charged apart from plain input, output and cached input, in words."""
    first, *larger = period.tiers
    charged = first.rates
    for name in _TOKENS[3:]:
        rate = getattr(charged, name)
        if rate != _whole(charged, name):
            yield f"{name.replace('_', ' ')} {usd_per_million(rate)}"
    for name, each in _FEES.items():
        if getattr(charged, name):
            yield f"{_pico(getattr(charged, name))} {each}"
    if charged.character:
        yield f"{usd_per_million(charged.character)} a million characters"
    for tier in larger:
        yield f"above {tier.above} tokens {usd_per_million(tier.rates.input)} / {usd_per_million(tier.rates.output)}"
    for other in tariff.within(at_s, at_s + DAY_S):
        if other is not period:
            rates = other.tiers[0].rates
            yield f"{_when(other, at_s)} {usd_per_million(rates.input)} / {usd_per_million(rates.output)}"


def _when(other: Period, at_s: int) -> str:
    hours = _hours(other)
    if hours is not None:
        return f"{hours} UTC"
    return f"from {_day(other)}" if other.since_s is not None and other.since_s > at_s else "at other hours"


def _whole(charged: Rates, name: str) -> int:
    """What a kind of token costs where it has no rate of its own."""
    if name == "cache_write_1h":
        return charged.cache_write
    return charged.output if name == "reasoning" or name.endswith("_output") else charged.input


def _day(period: Period) -> str | None:
    return None if period.since_s is None else datetime.fromtimestamp(period.since_s, UTC).date().isoformat()


def _hours(period: Period) -> str | None:
    if period.daily is None:
        return None
    return " to ".join(f"{second // 3600:02}:{second // 60 % 60:02}" for second in period.daily)


def _pico(rate: int) -> str:
    return f"{Decimal(rate).scaleb(-12).normalize():f}"
