"""What somebody spent, by the ledger: the sum of rows, however it is put together."""

import random
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from proxy.core.budget import PROXY, PayerId
from proxy.core.ledger import US_PER_DAY, LedgerRow
from proxy.core.window import Period, window_at
from proxy.ports import Away, StoreAway
from proxy.server.spending import LedgerSpend
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import ExchangeId
from tests.rows import DAY, random_rows, row

PAYERS: dict[PayerId, Callable[[LedgerRow], bool]] = {
    PROXY: lambda _: True,
    PayerId("account:acme"): lambda one: one.account == "acme",
    PayerId("virtual_key:vk_1"): lambda one: one.virtual_key == "vk_1",
    PayerId("account:nobody"): lambda _: False,
}


@pytest.mark.parametrize("payer", PAYERS)
@pytest.mark.parametrize("period", Period)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/Los_Angeles"])
async def test_spent_is_the_sum_of_the_rows(tmp_path: Path, payer: PayerId, period: Period, zone: str) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3")
    rows = random_rows(400, random.Random(1), days=40)
    await ledger.write(rows)
    spends = LedgerSpend(ledger)
    window = window_at(period, ZoneInfo(zone), DAY * 86_400 - 86_400 / 2)

    def exact(before_us: int, without: set[ExchangeId]) -> int:
        inside = [one for one in rows if window.starts_at * 10**6 <= one.started_us < window.resets_at * 10**6]
        counted = [one for one in inside if one.started_us < before_us and one.id not in without]
        return sum(one.cost_nanousd for one in counted if PAYERS[payer](one))

    for before_us in (0, (DAY - 1) * US_PER_DAY + 12_345_000, DAY * US_PER_DAY, (DAY + 40) * US_PER_DAY):
        for without in (set[ExchangeId](), {rows[0].id, rows[1].id, rows[2].id, ExchangeId("req_unknown")}):
            assert await spends.spent(payer, window, before_us // 1000, without) == exact(before_us, without)
    await ledger.close()


async def test_an_exchange_is_left_out_by_its_own_id_alone(tmp_path: Path) -> None:
    """A client may give its requests the id of another."""
    ledger = SqliteLedger(tmp_path / "ledger.sqlite3")
    await ledger.write([row(1), row(2, request_id="req_000009")])
    window = window_at(Period.DAILY, ZoneInfo("UTC"), DAY * 86_400 + 60)
    spent = await LedgerSpend(ledger).spent(PROXY, window, window.resets_at * 1000, {ExchangeId("req_000009")})
    assert spent == 2 * row().cost_nanousd
    await ledger.close()


async def test_a_ledger_that_is_away_is_told() -> None:
    class AwayLedger(SqliteLedger):
        async def spent(self, *_: object) -> int:
            raise StoreAway("gone fishing")

        async def row(self, exchange_id: str, account: str | None = None) -> LedgerRow | None:
            raise AssertionError(exchange_id)

    window = window_at(Period.DAILY, ZoneInfo("UTC"), 0)
    assert await LedgerSpend(AwayLedger(Path("none"))).spent(PROXY, window, 1000) == Away("gone fishing")
