"""Gateways with prices and a budget, and what must hold of their books after whatever happened."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from proxy.core.budget import PROXY, PayerId, account_subject
from proxy.core.ledger import LedgerRow
from proxy.core.payer import BudgetTable, Limit, Payer
from proxy.core.pricing import RouteRules
from proxy.core.routing import RoutingTable
from proxy.core.window import Period
from proxy.server.build import Stores
from proxy.terms import DEFAULT_ACCOUNT, NanoUsd, RouteName
from tests.gateway import Gateway

Change = Callable[[RoutingTable], RoutingTable]
USD = 10**9
PLENTY = 1000 * USD
# A token in costs 1,000 nano-USD, one out 10,000.
PRICE = "{input: 1, output: 10}"
IN, OUT = 1000, 10_000


def payer(subject: PayerId, cap: int) -> Payer:
    return Payer(
        subject,
        tuple(Limit(period, NanoUsd(cap), NanoUsd(cap * 4 // 5)) for period in (Period.DAILY, Period.MONTHLY)),
        ZoneInfo("UTC"),
    )


def budget(cap: int = PLENTY) -> Change:
    """A budget of the account that everybody has, and of the whole proxy: four books an exchange."""
    everybody = payer(PROXY, cap)
    own = (payer(account_subject(DEFAULT_ACCOUNT), cap), everybody)
    return lambda table: replace(table, budgets=BudgetTable((everybody,), {DEFAULT_ACCOUNT: own}))


def rules(table: RoutingTable, **by_route: RouteRules) -> RoutingTable:
    """What a file will say of routes: cost tiers, caps, what to do without a price."""
    made = {RouteName(name): one for name, one in by_route.items()}
    return replace(table, pricing=replace(table.pricing, routes={**table.pricing.routes, **made}))


def stores_of(gateway: Gateway) -> Stores:
    stores = gateway.service._stores
    assert stores is not None
    return stores


async def standings(gateway: Gateway) -> list[tuple[int, int]]:
    """Spent and held of every book."""
    payers = gateway.service.table.budgets.payers()
    rows = await stores_of(gateway).budgets.snapshot(payers, time.time())
    return [(row["spent_nanousd"], row["held_nanousd"]) for row in rows]


async def agree(gateway: Gateway, count: int, *, within_s: float = 5.0) -> list[LedgerRow]:
    """The ledger's `count` rows, once every book says that just their sum is spent, and nothing is held."""
    rows = await gateway.booked(count)
    assert len({row.id for row in rows}) == count
    spent = sum(row.cost_nanousd for row in rows)
    deadline = time.monotonic() + within_s
    while {*(found := await standings(gateway))} != {(spent, 0)}:
        assert time.monotonic() < deadline, f"spent and held are {found}, and the rows' sum is {spent}"
        await asyncio.sleep(0.01)
    assert stores_of(gateway).budgets.kept == 0
    assert not gateway.log.bugs
    return rows


def told_cost(answer_body: bytes) -> dict[str, Any]:
    """The comment that a stream ends with."""
    (line,) = [line for line in answer_body.splitlines() if line.startswith(b": penstock ")]
    found: dict[str, Any] = orjson.loads(line.removeprefix(b": penstock "))
    return found
