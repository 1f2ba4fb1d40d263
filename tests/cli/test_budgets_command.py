"""`penstock budgets` against a server with budgets, from a process of its own."""

import asyncio
import json
import os
import subprocess
import time
from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from proxy.core.budget import PROXY, account_subject
from proxy.core.currency import Currency
from proxy.core.payer import BudgetTable, Limit, Payer
from proxy.core.window import Period
from proxy.terms import AccountId, NanoUsd
from tests.conftest import Start
from tests.gateway import Gateway
from tests.server.process import ADMIN_KEY, PENSTOCK

ACME = AccountId("acme")
DAILY = Limit(Period.DAILY, NanoUsd(5 * 10**9), NanoUsd(4 * 10**9))
MONTHLY = Limit(Period.MONTHLY, NanoUsd(1000 * 10**9), NanoUsd(800 * 10**9))


@pytest.fixture
async def penstock(start: Start) -> Gateway:
    gateway = await start("routes: {}", admin_key=ADMIN_KEY)
    surface = gateway.service._surface
    assert surface is not None
    table = surface.runtime.table
    everybody = (Payer(PROXY, (MONTHLY,), ZoneInfo("UTC")),)
    budgets = BudgetTable(everybody, {ACME: (Payer(account_subject(ACME), (DAILY,), ZoneInfo("UTC")), *everybody)})
    pricing = replace(table.pricing, currency=Currency("CAD", Decimal(2)))
    surface.runtime = replace(surface.runtime, table=replace(table, budgets=budgets, pricing=pricing))
    return gateway


async def run(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PENSTOCK_ADMIN_KEY": ADMIN_KEY,
        "PENSTOCK_PORT": str(port),
        "COLUMNS": "200",
    }
    return await asyncio.to_thread(
        subprocess.run, [*PENSTOCK, "budgets", *arguments], capture_output=True, text=True, env=environ, check=False
    )


async def test_what_is_used_held_and_left(penstock: Gateway) -> None:
    runtime = penstock.service._surface.runtime if penstock.service._surface else None
    assert runtime is not None
    hold = await runtime.budgets.reserve(
        "x",  # type: ignore[arg-type] # any id
        runtime.table.budgets.payers_of(ACME),
        NanoUsd(10**9),
        int(time.time() * 1000),
    )
    shown = await run(penstock.port)
    assert (shown.returncode, shown.stderr) == (0, "")
    header, proxy, acme = (line.split() for line in shown.stdout.splitlines())
    assert header == ["BUDGET", "PERIOD", "USED", "HELD", "LEFT", "LIMIT", "ALERT", "SEEN", "BEGINS", "ANEW"]
    assert proxy[:10] == ["proxy", "monthly", "0.00", "CAD", "2.00", "CAD", "1,998.00", "CAD", "2,000.00", "CAD"]
    assert acme[:10] == ["acme", "daily", "0.00", "CAD", "2.00", "CAD", "8.00", "CAD", "10.00", "CAD"]
    assert acme[10:12] == ["none", "store"]
    runtime.budgets.release(hold)  # type: ignore[arg-type] # it was granted: see above
    (told,) = json.loads((await run(penstock.port, "--account", "acme", "--json")).stdout)
    assert (told["account"], told["limit_nanousd"], told["limit_usd"], told["limit"]) == ("acme", 5 * 10**9, 5.0, 10.0)


async def test_an_account_without_a_budget_of_its_own(penstock: Gateway) -> None:
    wrong = await run(penstock.port, "--account", "acmee")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "penstock: the account 'acmee' has no budget of its own. Did you mean 'acme'?\n"
    odd = await run(penstock.port, "--account", "a&b=\udcff", "--json")
    assert (odd.returncode, odd.stdout) == (1, "[]\n")
    assert "Traceback" not in odd.stderr
    empty = await run(penstock.port, "--account", "")
    assert (empty.returncode, "'account' must be 1 to 128 characters" in empty.stderr) == (1, True)


async def test_without_budgets_and_without_a_server(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=ADMIN_KEY)
    none = await run(penstock.port)
    assert (none.returncode, none.stdout) == (
        0,
        "There are no budgets: `budgets:` in the routes file sets them.\n",
    )
    missing = await run(1)
    assert missing.returncode == 1
    assert "penstock serve" in missing.stderr
    assert "Traceback" not in missing.stderr
