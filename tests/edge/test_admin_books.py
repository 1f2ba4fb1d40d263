"""What the admin API tells of the books, over a real gateway with rows in its real ledger."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from proxy.core.budget import PROXY, account_subject
from proxy.core.currency import Currency
from proxy.core.ledger import COUNT_MAX, US_PER_DAY, US_PER_S, LedgerRow
from proxy.core.payer import BudgetTable, Limit, Payer
from proxy.core.window import Period, window_at
from proxy.phases.budgets import Hold
from proxy.phases.runtime import Runtime
from proxy.ports import StoreUnusable
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import AccountId, ExchangeId, NanoUsd
from tests.conftest import Start
from tests.edge.doorway import KEY, ask
from tests.gateway import Gateway, closed_port, send
from tests.rows import DAY, counted, random_rows, row

WITH_KEY = {"x-api-key": KEY}
NOW_S = DAY * 86_400 + 20 * 3600.0  # eight in the evening of the rows' last day, 2024-10-04
ROWS = random_rows(200, random.Random(11), days=5)
CAD = Currency("CAD", Decimal("1.5"))
ACME, BRAVO = AccountId("acme"), AccountId("bravo")
DAILY = Limit(Period.DAILY, NanoUsd(5 * 10**9), NanoUsd(4 * 10**9))
MONTHLY = Limit(Period.MONTHLY, NanoUsd(102 * 10**9), NanoUsd(80 * 10**9))
EVERYBODY = Payer(PROXY, (MONTHLY,), ZoneInfo("UTC"))
BUDGETS = BudgetTable(
    (EVERYBODY,),
    {
        ACME: (Payer(account_subject(ACME), (DAILY, MONTHLY), ZoneInfo("Europe/Paris")), EVERYBODY),
        BRAVO: (Payer(account_subject(BRAVO), (DAILY,), ZoneInfo("UTC")), EVERYBODY),
    },
)
Tell = Callable[[str], Awaitable[Any]]


def _runtime(penstock: Gateway) -> Runtime:
    assert penstock.service._surface is not None
    return penstock.service._surface.runtime


def _change(penstock: Gateway, *, now_s: float = NOW_S, **changes: Any) -> None:
    """The gateway goes on with budgets, a currency, and a clock that stands still."""
    surface = penstock.service._surface
    assert surface is not None
    table = surface.runtime.table
    table = replace(table, budgets=BUDGETS, pricing=replace(table.pricing, currency=CAD))
    surface.runtime = replace(surface.runtime, table=table, wall=lambda: now_s, **changes)


@pytest.fixture(params=["sqlite", "postgres"])
async def penstock(request: pytest.FixtureRequest, start: Start, postgres_url: Callable[[], Awaitable[str]]) -> Gateway:
    database_url = await postgres_url() if request.param == "postgres" else None
    gateway = await start("routes: {}", admin_key=KEY, database_url=database_url)
    _change(gateway)
    return gateway


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Callable[[], Awaitable[str]]:
    """Gives the URL of an empty database; the server is started only if it is asked for."""

    async def url() -> str:
        made: str = await request.getfixturevalue("postgres").new_database()
        return made

    return url


async def write(penstock: Gateway, rows: Sequence[LedgerRow]) -> None:
    assert penstock.service._stores is not None
    assert await penstock.service._stores.ledger.write(rows) == len(rows)


async def told(penstock: Gateway, path: str) -> Any:
    answer = await ask(penstock.port, path, WITH_KEY)
    assert answer.status == 200, (path, answer.body)
    return answer.json()


async def refused(penstock: Gateway, path: str, status: int = 400) -> str:
    answer = await ask(penstock.port, path, WITH_KEY)
    assert answer.status == status, (path, answer.body)
    message: str = answer.error["message"]
    return message


# Analytics.


async def test_the_summary_is_what_the_rows_add_up_to(penstock: Gateway) -> None:
    await write(penstock, ROWS)
    summary = await told(penstock, "/admin/analytics/summary?days=5")
    expected = counted(ROWS)
    total = summary["total"]
    assert (summary["from"], summary["to"], summary["account"]) == ("2024-09-30", "2024-10-04", None)
    assert summary["currency"] == {"code": "CAD", "per_usd": 1.5}
    assert total["calls"] == expected["calls"]
    assert total["tokens"]["input"] == expected["input_tokens"]
    assert total["cost_nanousd"] == expected["cost_nanousd"]
    assert total["cost"] == pytest.approx(1.5 * expected["cost_nanousd"] / 10**9, abs=1e-6)
    assert total["saved_by_cache_nanousd"] == expected["saved_nanousd"]
    against = expected["baseline_nanousd"] - expected["baseline_cost_nanousd"]
    assert total["saved_against_baseline_nanousd"] == against
    assert total["error_rate"] == pytest.approx(expected["failed"] / len(ROWS), abs=1e-6)
    assert total["fallback_rate"] == pytest.approx(expected["fallbacks"] / len(ROWS), abs=1e-6)
    assert total["cache_hit_rate"] == pytest.approx(expected["cache_hits"] / expected["cache_lookups"], abs=1e-6)
    assert total["total_ms"]["p50"] < total["total_ms"]["p95"]
    assert total["first_event_ms"]["p95"] is not None
    assert total["tokens_per_s"] > 0
    assert set(summary["by"]) == {"provider", "model", "route", "account", "virtual_key", "tag"}
    for dimension in ("provider", "model", "route", "account", "virtual_key"):
        by = {one["value"]: one["cost_nanousd"] for one in summary["by"][dimension]}
        values = {getattr(one, dimension) for one in ROWS}
        assert by == {
            value: sum(one.cost_nanousd for one in ROWS if getattr(one, dimension) == value) for value in values
        }
    assert {one["value"] for one in summary["by"]["tag"]} == {"team=search", "team=ads", "run=7"}
    assert sum(one["calls"] for one in summary["days"]) == len(ROWS)
    assert summary["left_out"] == {}
    today = await told(penstock, "/admin/analytics/summary?days=1")
    assert today["total"]["calls"] == sum(one.started_us // US_PER_DAY == DAY for one in ROWS)
    assert (await told(penstock, "/admin/analytics/summary"))["from"] == "2024-09-28"


async def test_accounts_do_not_see_each_other(penstock: Gateway) -> None:
    own = [row(1, account="acme", model="m-acme"), row(2, account="acme", tags=(("who", "acme"),))]
    other = [
        row(3, account="bravo", model="m-bravo", virtual_key="vk_bravo", tags=(("who", "bravo"),), route="r-bravo")
    ]
    await write(penstock, [*own, *other])
    for path in (
        "/admin/analytics/summary?account=acme",
        "/admin/analytics/forecast?account=acme",
        "/admin/budgets?account=acme",
        "/admin/ledger?account=acme",
    ):
        answer = await ask(penstock.port, path, WITH_KEY)
        assert answer.status == 200
        assert b"bravo" not in answer.body, path
    summary = await told(penstock, "/admin/analytics/summary?account=acme")
    assert (summary["total"]["calls"], summary["account"], summary["by"]["account"]) == (2, "acme", [])
    assert (await told(penstock, "/admin/analytics/summary"))["total"]["calls"] == 3
    spent = (await told(penstock, "/admin/analytics/forecast?account=bravo"))["spent_this_month_nanousd"]
    assert spent == other[0].cost_nanousd
    assert [one["id"] for one in (await told(penstock, "/admin/ledger?account=bravo"))["rows"]] == [other[0].id]
    for stranger in ("", "ACME", "acm", "acme%20", "%25", "_cme", "acme%00", "*"):
        answer = await ask(penstock.port, f"/admin/analytics/summary?account={stranger}", WITH_KEY)
        if answer.status == 200:
            assert answer.json()["total"]["calls"] == 0, stranger
        else:
            assert (answer.status, stranger) == (400, "")


async def test_only_the_dearest_of_many_values_are_told(penstock: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(penstock, [row(number, model=f"m{number}", cost_nanousd=number) for number in range(1, 6)])
    monkeypatch.setattr("proxy.edge.admin.analytics.VALUES_MAX", 2)
    summary = await told(penstock, "/admin/analytics/summary")
    assert [one["value"] for one in summary["by"]["model"]] == ["m5", "m4"]
    assert summary["left_out"] == {"model": 3}
    assert summary["total"]["calls"] == 5


async def test_the_forecast_says_when_each_budget_runs_out(penstock: Gateway) -> None:
    """20 days at 4 USD of acme and 1 of bravo, today among them; October has 31 days."""
    await write(
        penstock,
        [
            row(20 * back + number, account=account, cost_nanousd=usd * 10**9, started_us=(DAY - back) * US_PER_DAY)
            for back in range(20)
            for number, (account, usd) in enumerate((("acme", 4), ("bravo", 1)))
        ],
    )
    everybody = await told(penstock, "/admin/analytics/forecast")
    assert (everybody["from"], everybody["to"]) == ("2024-10-04", "2024-11-02")
    assert everybody["basis"] == "trend_and_weekdays"
    assert everybody["complete_days"] == 19
    assert set(everybody["weekdays"]) == {"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
    assert everybody["spent_this_month_nanousd"] == 4 * 5 * 10**9
    assert everybody["current_month"]["expected"] == pytest.approx(1.5 * 31 * 5, rel=1e-6)
    assert everybody["current_month"]["low"] <= everybody["current_month"]["high"]
    assert everybody["next_month"]["month"] == "2024-11"
    assert everybody["total"]["expected_nanousd"] == pytest.approx(30 * 5 * 10**9, rel=1e-6)
    assert everybody["budgets"] == [
        {
            "subject": "proxy",
            "period": "monthly",
            "limit_nanousd": 102 * 10**9,
            "limit": 153.0,
            "runs_out": "2024-10-21",
        }
    ]
    acme = await told(penstock, "/admin/analytics/forecast?account=acme&horizon_days=3")
    assert len(acme["days"]) == 3
    assert [(one["subject"], one["period"], one["runs_out"]) for one in acme["budgets"]] == [
        ("account:acme", "daily", None), ("account:acme", "monthly", "2024-10-26")
    ]  # fmt: skip
    assert (await told(penstock, "/admin/analytics/forecast?account=nobody"))["budgets"] == []


async def test_an_empty_ledger_and_a_full_one(penstock: Gateway) -> None:
    empty = await told(penstock, "/admin/analytics/summary?days=366")
    assert (empty["total"]["calls"], empty["total"]["error_rate"], empty["days"]) == (0, None, [])
    assert (await told(penstock, "/admin/analytics/forecast"))["basis"] == "nothing"
    assert await told(penstock, "/admin/ledger") == {
        "currency": {"code": "CAD", "per_usd": 1.5}, "rows": [], "after": None
    }  # fmt: skip
    most = {"cost_nanousd": COUNT_MAX, "saved_nanousd": COUNT_MAX, "baseline_nanousd": COUNT_MAX}
    days = [row(back, started_us=(DAY - back) * US_PER_DAY, **most) for back in range(30)]
    await write(penstock, [*days, row(40, started_us=COUNT_MAX, ended_us=COUNT_MAX, input_tokens=COUNT_MAX)])
    assert (await told(penstock, "/admin/analytics/summary?days=366"))["total"]["cost_nanousd"] == 30 * COUNT_MAX
    full = await told(penstock, "/admin/analytics/forecast?horizon_days=366")
    assert full["total"]["high_nanousd"] == COUNT_MAX
    assert len((await told(penstock, "/admin/ledger"))["rows"]) == 31


# Rows.


async def test_a_row_is_told_whole(penstock: Gateway) -> None:
    kept = row(1, request_id="mine-1", tags=(("team", "search"), ("run", "7")), code=None)
    await write(penstock, [kept, row(2, request_id="mine-1", baseline_nanousd=None, saved_nanousd=10**9)])
    one = await told(penstock, f"/admin/ledger/{kept.id}")
    assert one["currency"] == {"code": "CAD", "per_usd": 1.5}
    assert one["row"] == {
        "id": kept.id, "request_id": "mine-1",
        "started_us": kept.started_us, "started": "2024-10-04T12:00:01.000000Z",
        "ended_us": kept.ended_us, "ended": "2024-10-04T12:00:03.000000Z",
        "account": "acme", "virtual_key": "vk_1", "route": "general", "provider": "openai", "model": "gpt-4o-mini",
        "api": "chat", "outcome": "ok", "status": 200, "code": None, "streamed": True, "attempts": 1, "fell_back": False,
        "input_tokens": 1000, "cached_tokens": 200, "cache_write_tokens": 0, "output_tokens": 100, "reasoning_tokens": 10,
        "estimated": False, "cost_nanousd": 210_000, "cost": 0.000315, "cost_source": "listed",
        "saved_nanousd": 0, "saved": 0.0, "baseline_nanousd": 3_500_000, "baseline": 0.00525,
        "cache": "miss", "first_event_ms": 400.0, "total_ms": 2000.0, "tags": {"team": "search", "run": "7"},
    }  # fmt: skip
    latest = (await told(penstock, "/admin/ledger/mine-1"))["row"]
    assert (latest["id"], latest["baseline"], latest["saved"]) == ("req_000002", None, 1.5)
    message = await refused(penstock, "/admin/ledger/req_unknown", 404)
    assert "no row with the id or request id 'req_unknown'" in message
    for odd in ("%00", "%ED%A0%80", "%27%3B--", "%25", "a%2Fb", "x" * 4000, "..", "%3Cscript%3E"):
        await refused(penstock, f"/admin/ledger/{odd}", 404)


async def test_an_answered_request_is_found_by_the_id_that_its_client_chose(start: Start, upstream_url: str) -> None:
    penstock = await start(f"providers: {{sim: {{like: vllm, base_url: '{upstream_url}'}}}}", admin_key=KEY)
    headers = {"x-request-id": "mine-2", "x-penstock-tags": "team=search"}
    await send(penstock.port, "/v1/chat/completions", b'{"model":"sim/plain","messages":[]}', headers)
    (booked,) = await penstock.booked()
    found = (await told(penstock, "/admin/ledger/mine-2"))["row"]
    assert (found["id"], found["request_id"], found["tags"]) == (booked.id, "mine-2", {"team": "search"})
    assert (await told(penstock, "/admin/ledger?tag=team%3Dsearch"))["rows"] == [found]


_FILTERS: dict[str, Callable[[LedgerRow], bool]] = {
    "account=acme": lambda one: one.account == "acme",
    "key=vk_1": lambda one: one.virtual_key == "vk_1",
    "route=voice": lambda one: one.route == "voice",
    "provider=groq": lambda one: one.provider == "groq",
    "model=gpt-oss-120b": lambda one: one.model == "gpt-oss-120b",
    "outcome=partial": lambda one: one.outcome == "partial",
    "status=502": lambda one: one.status == 502,
    "code=upstream_error": lambda one: one.code == "upstream_error",
    "tag=run=7": lambda one: ("run", "7") in one.tags,
    "tag=team%3Dsearch": lambda one: ("team", "search") in one.tags,
    "since=2024-10-03": lambda one: one.started_us >= (DAY - 1) * US_PER_DAY,
    f"until={(DAY - 1) * 86_400}": lambda one: one.started_us < (DAY - 1) * US_PER_DAY,
    "since=2024-10-02T12:00:00%2B02:00&until=2024-10-03T10:00:00Z": lambda one: (
        (DAY - 2) * 86_400 + 36_000 <= one.started_us / US_PER_S < (DAY - 1) * 86_400 + 36_000
    ),
    "account=bravo&provider=openai&outcome=ok&status=200": lambda one: (
        (one.account, one.provider, one.outcome) == ("bravo", "openai", "ok")
    ),
}


async def test_filters(penstock: Gateway) -> None:
    await write(penstock, ROWS)
    for query, holds in _FILTERS.items():
        found = (await told(penstock, f"/admin/ledger?{query}&limit=1000"))["rows"]
        expected = sorted((one for one in ROWS if holds(one)), key=lambda one: (one.started_us, one.id), reverse=True)
        assert [one["id"] for one in found] == [one.id for one in expected], query
        assert 0 < len(found) < len(ROWS), query


async def test_pages_hold_every_row_once_the_newest_first(penstock: Gateway) -> None:
    at_once = [row(number, started_us=DAY * US_PER_DAY) for number in range(30)]  # one moment, many rows
    await write(penstock, [*at_once, *(row(number) for number in range(100, 135))])
    seen: list[str] = []
    after = ""
    for _ in range(20):
        page = await told(penstock, f"/admin/ledger?limit=7{after}")
        seen += [one["id"] for one in page["rows"]]
        if page["after"] is None:
            break
        after = f"&after={quote(page['after'])}"
    assert len(seen) == len(set(seen)) == 65
    assert seen[0] == "req_000134"
    assert seen[-1] == "req_000000"
    assert len((await told(penstock, "/admin/ledger"))["rows"]) == 65
    await write(penstock, [row(number) for number in range(200, 300)])
    assert len((await told(penstock, "/admin/ledger"))["rows"]) == 100


# What a query may not be.

_BAD = {
    "/admin/analytics/summary?days=0": "'days' must be a whole number from 1 to 366; got '0'",
    "/admin/analytics/summary?days=367": "from 1 to 366",
    "/admin/analytics/summary?days=": "from 1 to 366",
    "/admin/analytics/summary?days=seven": "got 'seven'",
    "/admin/analytics/summary?days=7&days=8": "stands twice",
    "/admin/analytics/summary?day=7": "Did you mean 'days'?",
    "/admin/analytics/summary?account=": "'account' must be 1 to 128 characters",
    "/admin/analytics/forecast?horizon_days=1.5": "'horizon_days' must be a whole number from 1 to 366",
    "/admin/analytics/forecast?account=": "'account' must be",
    "/admin/budgets?account=": "'account' must be",
    "/admin/ledger?limit=0": "'limit' must be a whole number from 1 to 1000",
    "/admin/ledger?limit=1001": "from 1 to 1000",
    "/admin/ledger?outcome=faild": "Did you mean 'failed'?",
    "/admin/ledger?status=1000": "'status' must be a whole number from 0 to 999",
    "/admin/ledger?tag=team": "'tag' must be name=value",
    "/admin/ledger?tag=%3Dx": "'tag' must be name=value",
    "/admin/ledger?after=x": "'after' must be what the page before told",
    "/admin/ledger?since=soon": "Unix seconds; got 'soon'",
    "/admin/ledger?since=2024-10-04T00:00:00+02:00": "%2B",
    "/admin/ledger?since=1728000000000": "Unix seconds",
    "/admin/ledger?since=2024-10-04&until=2024-10-04": "'since' must be before 'until'",
    "/admin/ledger?virtual_key=x": "Unknown query parameter 'virtual_key'",
    "/admin/ledger/x?account=acme": "Unknown query parameter 'account'. It takes none.",
}


async def test_what_was_expected_is_said(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=KEY)
    for path, expected in _BAD.items():
        assert expected in await refused(penstock, path), path


HOSTILE = [
    "%00", "a%00b", "%ED%A0%80", "%FF%FE", "%25", "_", "%25acme%25", "ac_e", "*", "'%20OR%20'1'='1", "%22", "%5C", "%5Cx00",
    "';%20DROP%20TABLE%20ledger;--", "$1", ":account", "?", "{}", "%0A", "run=7%0Ateam=search", "x%0Ateam=search", "9" * 30,
    "-1", "1e400", "NaN", "null", "%F0%9F%99%82" * 100, "x" * 3000, "%D9%A1", "(other)", "team=%25", "team=%00",
    "team=sear_h", "%00=%00", "1.%00", "99.%25",
]  # fmt: skip


async def test_nothing_that_is_sent_breaks_a_store(penstock: Gateway) -> None:
    await write(penstock, ROWS)
    names = (
        "account",
        "key",
        "route",
        "provider",
        "model",
        "outcome",
        "status",
        "code",
        "tag",
        "since",
        "until",
        "limit",
    )
    paths = [f"/admin/ledger?{name}={value}" for name in names for value in HOSTILE]
    paths += [f"/admin/budgets?account={value}" for value in HOSTILE]
    paths += [f"/admin/analytics/summary?{name}={value}" for name in ("days", "account") for value in HOSTILE]
    paths += [f"/admin/analytics/forecast?{name}={value}" for name in ("horizon_days", "account") for value in HOSTILE]
    for path in paths:
        answer = await ask(penstock.port, path, WITH_KEY)
        assert answer.status in (200, 400), (path, answer.body)
        if answer.status == 200:
            found = answer.json()
            calls = found["total"].get("calls", 0) if "total" in found else 0
            assert (found.get("rows", []), found.get("budgets", []), calls) == ([], [], 0), path
    for value in HOSTILE:
        answer = await ask(penstock.port, f"/admin/ledger?after={value}", WITH_KEY)
        assert answer.status in (200, 400), value
    assert penstock.log.bugs == []
    assert (await told(penstock, "/admin/analytics/summary"))["total"]["calls"] == len(ROWS)


async def test_a_name_that_no_store_takes_is_found_as_it_was_kept(penstock: Gateway) -> None:
    await write(penstock, [row(1, account="nul\0", model="half \ud800", tags=(("a\0", "b\nc"),)), row(2)])
    for query in ("account=nul%00", "model=half%20%ED%A0%80", "tag=a%00=b%0Ac"):
        found = (await told(penstock, f"/admin/ledger?{query}"))["rows"]
        assert [one["id"] for one in found] == ["req_000001"], query
    assert (await told(penstock, "/admin/analytics/summary?account=nul%00"))["total"]["calls"] == 1


# Budgets.


def _by_period(document: Any, account: str | None) -> dict[str, Any]:
    return {one["period"]: one for one in document["budgets"] if one["account"] == account}


async def test_every_book_is_told(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=KEY)
    now_s = time.time()
    _change(penstock, now_s=now_s)
    await write(penstock, [row(1, account="acme", started_us=int(now_s * US_PER_S) - 1, cost_nanousd=4 * 10**9)])
    from_ledger = await told(penstock, "/admin/budgets")
    assert from_ledger["currency"] == {"code": "CAD", "per_usd": 1.5}
    assert [(one["subject"], one["account"], one["period"]) for one in from_ledger["budgets"]] == [
        ("proxy", None, "monthly"),
        ("account:acme", "acme", "daily"),
        ("account:acme", "acme", "monthly"),
        ("account:bravo", "bravo", "daily"),
    ]
    daily = _by_period(from_ledger, "acme")["daily"]
    window = window_at(Period.DAILY, ZoneInfo("Europe/Paris"), now_s)
    resets_at = datetime.fromtimestamp(window.resets_at, UTC)
    assert datetime.fromisoformat(daily["resets_at"]) == resets_at
    assert daily == {
        "subject": "account:acme", "account": "acme", "period": "daily", "window": window.id,
        "resets_at": f"{resets_at:%Y-%m-%dT%H:%M:%SZ}", "resets_in_s": round(window.resets_at - now_s),
        "used_nanousd": 4 * 10**9, "used_usd": 4.0, "used": 6.0,
        "held_nanousd": 0, "held_usd": 0.0, "held": 0.0,
        "left_nanousd": 10**9, "left_usd": 1.0, "left": 1.5,
        "limit_nanousd": 5 * 10**9, "limit_usd": 5.0, "limit": 7.5,
        "alert_at_nanousd": 4 * 10**9, "alert_at_usd": 4.0, "alert_at": 6.0,
        "alert": "threshold", "seen": "ledger", "slice_left_nanousd": None,
    }  # fmt: skip
    runtime = _runtime(penstock)
    hold = await runtime.budgets.reserve(ExchangeId("x"), BUDGETS.payers_of(ACME), NanoUsd(10**9), int(now_s * 1000))
    assert isinstance(hold, Hold)
    held = await told(penstock, "/admin/budgets?account=acme")
    assert {one["account"] for one in held["budgets"]} == {"acme"}
    daily = _by_period(held, "acme")["daily"]
    assert [daily[name] for name in ("used_usd", "held_usd", "left_usd", "seen")] == [4.0, 1.0, 0.0, "store"]
    runtime.budgets.settle(hold, 2 * 10**9)
    async with asyncio.timeout(5):
        while (daily := _by_period(await told(penstock, "/admin/budgets"), "acme")["daily"])["held_nanousd"]:
            await asyncio.sleep(0.01)
    assert [daily[name] for name in ("used_usd", "left_usd", "alert")] == [6.0, 0.0, "limit"]
    assert (await told(penstock, "/admin/budgets?account=nobody"))["budgets"] == []


async def test_without_budgets_there_are_no_books(start: Start) -> None:
    penstock = await start("routes: {}", admin_key=KEY)
    assert await told(penstock, "/admin/budgets") == {
        "account": None, "currency": {"code": "USD", "per_usd": 1.0}, "budgets": []
    }  # fmt: skip


# Stores that cannot be read.


async def test_reports_change_nothing(penstock: Gateway) -> None:
    with pytest.raises(StoreUnusable, match="read-only"):
        await _runtime(penstock).ledger.write(ROWS)


_READING = ("/admin/analytics/summary", "/admin/analytics/forecast", "/admin/ledger", "/admin/ledger/x")


async def test_a_store_that_is_away_is_said_to_be_away(start: Start) -> None:
    url = f"postgresql://me:hunter2@127.0.0.1:{closed_port()}/books"
    penstock = await start("routes: {}", admin_key=KEY, database_url=url)
    for path in _READING:
        answer = await ask(penstock.port, path, WITH_KEY)
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        assert answer.error["message"].startswith("The ledger cannot be read now: PostgreSQL at 127.0.0.1")
        assert "rows wait on disk" in answer.error["message"]
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "true")
        assert b"hunter2" not in answer.raw
    _change(penstock)
    books = (await told(penstock, "/admin/budgets"))["budgets"]
    assert len(books) == 4
    for one in books:
        assert (one["seen"], one["used_nanousd"], one["used"], one["alert"]) == ("ledger", None, None, None)
        assert one["limit_usd"] in (5.0, 102.0)
    assert penstock.log.bugs == []


async def test_a_store_that_cannot_be_used_is_not_worth_asking_again(start: Start, tmp_path: Path) -> None:
    penstock = await start("routes: {}", admin_key=KEY)
    missing = SqliteLedger(tmp_path / "none.sqlite3", read_only=True)
    _change(penstock, ledger=missing)
    for path in _READING:
        answer = await ask(penstock.port, path, WITH_KEY)
        assert (answer.status, answer.error["code"]) == (503, "store_unavailable")
        assert "there is no ledger yet" in answer.error["message"]
        assert (answer.headers.get("retry-after"), answer.headers["x-should-retry"]) == (None, "false")
    await missing.close()


async def test_a_store_that_does_not_answer_is_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Asleep(SqliteLedger):
        async def row(self, exchange_id: str, account: str | None = None) -> LedgerRow | None:
            await asyncio.Event().wait()
            return None

    monkeypatch.setattr("proxy.edge.admin.reading.ANSWER_S", 0.05)
    penstock = await start("routes: {}", admin_key=KEY)
    asleep = Asleep(tmp_path / "x.sqlite3")
    _change(penstock, ledger=asleep)
    answer = await ask(penstock.port, "/admin/ledger/x", WITH_KEY)
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "store_unavailable", "5")
    assert "'since' and 'until'" in answer.error["message"]
    await asleep.close()
