"""Synthetic series whose continuation is known."""

import json
import random
from datetime import date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import orjson
import pytest

from proxy.core.budget import PROXY, account_subject
from proxy.core.currency import Currency
from proxy.core.forecast import CONFIDENCE, DAYS_MAX, Cap, caps_of, document, foretell
from proxy.core.ledger import COUNT_MAX
from proxy.core.payer import Limit, Payer
from proxy.core.window import Period
from proxy.terms import AccountId, NanoUsd

TODAY = date(2026, 6, 10)  # a Wednesday; June has 30 days
WEEKDAYS = (100, 120, 90, 110, 130, 20, 10)


def _days(count: int, end: date = TODAY) -> list[date]:
    return [end - timedelta(days=number) for number in range(count, 0, -1)]


def _series(count: int, value_of: "object") -> dict[date, int]:
    assert callable(value_of)
    return {day: value_of(day) for day in _days(count)}


def _rising(day: date) -> int:
    return 1_000_000 + 5_000 * (day - TODAY).days + 1_000 * WEEKDAYS[day.weekday()]


def test_a_trend_with_weekdays_is_continued_exactly() -> None:
    found = foretell(_series(56, _rising), TODAY, horizon_days=30)
    assert (found.basis, found.note, found.complete_days) == ("trend_and_weekdays", None, 56)
    for day, band in found.days:
        assert band.expected == pytest.approx(_rising(day), abs=2)
        assert band.low is not None
        assert band.high is not None
        assert band.low - 2 <= band.expected <= band.high + 2
    assert found.total.expected == pytest.approx(sum(_rising(day) for day, _ in found.days), abs=40)
    assert [day for day, _ in found.days] == [TODAY + timedelta(days=number) for number in range(30)]


def test_months_are_what_was_spent_and_what_is_expected() -> None:
    spent = _series(56, _rising) | {TODAY: 12_345}
    found = foretell(spent, TODAY)
    june = [date(2026, 6, 1) + timedelta(days=number) for number in range(30)]
    july = [date(2026, 7, 1) + timedelta(days=number) for number in range(31)]
    assert found.spent_this_month == sum(_rising(day) for day in june if day < TODAY) + 12_345
    assert found.current_month.expected == pytest.approx(sum(map(_rising, june)), abs=40)
    assert found.next_month.expected == pytest.approx(sum(map(_rising, july)), abs=60)


def test_today_counts_as_spent_and_is_not_learned_from() -> None:
    series = _series(28, lambda _: 1000)
    without = foretell(series, TODAY)
    with_little, with_much = foretell(series | {TODAY: 1}, TODAY), foretell(series | {TODAY: 5000}, TODAY)
    assert with_little.days == without.days == with_much.days
    assert with_little.current_month.expected == without.current_month.expected == 30_000
    assert with_much.spent_this_month == 14_000
    assert with_much.current_month.expected >= 14_000 + 16_000  # the rest of the month is still to come


def _runs_out(spent: dict[date, int], cap: int, period: Period = Period.MONTHLY, horizon_days: int = 1) -> date | None:
    (found,) = foretell(spent, TODAY, horizon_days=horizon_days, caps=[Cap(PROXY, period, cap)]).exhausted
    assert found.cap == Cap(PROXY, period, cap)
    return found.on


def test_the_day_a_monthly_budget_runs_out() -> None:
    series = _series(28, lambda _: 1000)  # 9,000 by the 9th; 10,000 by the evening of the 10th
    for budget, day in ((0, 10), (8_000, 10), (9_000, 10), (10_000, 10), (10_001, 11), (29_500, 30), (30_000, 30)):
        assert _runs_out(series, budget) == date(2026, 6, day), budget
    assert _runs_out(series, 30_001) is None
    assert _runs_out(series | {TODAY: 5000}, 14_500) == date(2026, 6, 11)
    assert foretell(series, TODAY).exhausted == ()


def test_a_longer_horizon_looks_into_the_next_months_each_from_nothing() -> None:
    series = _series(28, lambda _: 1000)
    for horizon_days, on in ((51, None), (52, date(2026, 7, 31))):
        assert _runs_out(series, 30_500, horizon_days=horizon_days) == on
    rising = _series(28, lambda day: 1000 + 10 * (day - TODAY).days)  # 31,650 in June; 40,650 by the 30th of July
    assert _runs_out(rising, 40_000, horizon_days=20) is None
    assert _runs_out(rising, 40_000, horizon_days=60) == date(2026, 7, 30)


def test_the_day_a_daily_budget_runs_out() -> None:
    rising = _series(28, lambda day: 10_000 + 100 * (day - TODAY).days)
    for cap, on in ((9_000, TODAY), (10_000, TODAY), (10_100, TODAY + timedelta(days=1)), (10_950, date(2026, 6, 20))):
        assert _runs_out(rising, cap, Period.DAILY, horizon_days=30) == on, cap
    assert _runs_out(rising, 20_000, Period.DAILY, horizon_days=30) is None
    assert _runs_out(rising | {TODAY: 20_000}, 20_000, Period.DAILY) == TODAY


def test_the_budgets_of_one_payer_and_of_no_other() -> None:
    daily, monthly = Limit(Period.DAILY, NanoUsd(5), NanoUsd(4)), Limit(Period.MONTHLY, NanoUsd(50), NanoUsd(40))
    acme = account_subject(AccountId("acme"))
    payers = [Payer(PROXY, (monthly,), ZoneInfo("UTC")), Payer(acme, (daily, monthly), ZoneInfo("UTC"))]
    assert caps_of(payers, PROXY) == (Cap(PROXY, Period.MONTHLY, 50),)
    assert caps_of(payers, acme) == (Cap(acme, Period.DAILY, 5), Cap(acme, Period.MONTHLY, 50))
    assert caps_of(payers, account_subject(AccountId("bravo"))) == ()


def test_the_trend_and_the_weekdays_are_told() -> None:
    found = foretell(_series(56, _rising), TODAY)
    assert found.trend == pytest.approx(5_000, abs=1)
    mean = sum(WEEKDAYS) / 7
    assert found.weekdays == pytest.approx([1_000 * (value - mean) for value in WEEKDAYS], abs=5)
    assert foretell(_series(7, _rising), TODAY).weekdays is None
    few = foretell(_series(3, _rising), TODAY)
    assert (few.trend, few.weekdays) == (None, None)


def test_the_document_says_all_in_nano_usd_and_in_the_currency() -> None:
    caps = [Cap(PROXY, Period.MONTHLY, 25 * 10**9), Cap(None, Period.DAILY, 10**12)]
    found = foretell(_series(28, lambda _: 10**9), TODAY, horizon_days=3, caps=caps)
    told = document(found, Currency("CAD", Decimal("1.5")), "acme")
    assert json.loads(json.dumps(told)) == told
    assert (told["from"], told["to"], told["account"]) == ("2026-06-10", "2026-06-12", "acme")
    assert told["currency"] == {"code": "CAD", "per_usd": 1.5}
    assert (told["spent_this_month_nanousd"], told["spent_this_month"]) == (9 * 10**9, 13.5)
    assert told["current_month"]["month"] == "2026-06"
    assert told["current_month"]["expected"] == pytest.approx(45.0)
    assert told["next_month"]["month"] == "2026-07"
    assert told["next_month"]["expected_nanousd"] == pytest.approx(31 * 10**9, abs=100)
    assert [one["day"] for one in told["days"]] == ["2026-06-10", "2026-06-11", "2026-06-12"]
    assert set(told["days"][0]) >= {"expected", "low", "high", "expected_nanousd", "low_nanousd", "high_nanousd"}
    assert set(told["weekdays"]) >= {"monday", "sunday"}
    assert told["budgets"] == [
        {"subject": "proxy", "period": "monthly", "limit_nanousd": 25 * 10**9, "limit": 37.5, "runs_out": "2026-06-25"},
        {"subject": None, "period": "daily", "limit_nanousd": 10**12, "limit": 1500.0, "runs_out": None},
    ]


@pytest.mark.parametrize("count", [0, 3, 10, 56])
def test_what_fills_the_books_fits_into_json(count: int) -> None:
    full = _series(count, lambda day: COUNT_MAX if day.day % 3 else 0) | {TODAY: COUNT_MAX}
    told = document(foretell(full, TODAY, horizon_days=366), Currency("XXX", Decimal(10**6)))
    assert orjson.loads(orjson.dumps(told))["days"]


@pytest.mark.parametrize(
    ("count", "basis", "note"),
    [
        (0, "nothing", "No day is complete yet"),
        (1, "mean", "Only 1 complete days, fewer than 7"),
        (6, "mean", "Only 6 complete days, fewer than 7"),
        (7, "trend", "Only 7 complete days, fewer than 14"),
        (13, "trend", "Only 13 complete days, fewer than 14"),
        (14, "trend_and_weekdays", None),
    ],
)
def test_little_data_is_said_to_be_little(count: int, basis: str, note: str | None) -> None:
    found = foretell(_series(count, lambda _: 500), TODAY, horizon_days=10)
    assert (found.basis, found.complete_days) == (basis, count)
    assert (found.note or "").startswith(note or "")
    assert (found.note is None) == (note is None)
    assert found.total.expected == pytest.approx(5000 if count else 0, abs=1)
    assert (found.total.low is None) == (basis in ("nothing", "mean"))


def test_the_interval_holds_as_often_as_it_says_and_widens() -> None:
    """Over many noisy series the truth lies inside about as often as the confidence says, for a day and for a sum."""
    rng = random.Random(7)
    inside_day = inside_sum = 0
    rounds = 400
    for _ in range(rounds):
        noisy = {day: max(0, round(_rising(day) + rng.gauss(0, 40_000))) for day in _days(42)}
        found = foretell(noisy, TODAY, horizon_days=14)
        truth = [round(_rising(day) + rng.gauss(0, 40_000)) for day, _ in found.days]
        last = found.days[-1][1]
        assert last.low is not None
        assert last.high is not None
        assert found.total.low is not None
        assert found.total.high is not None
        inside_day += last.low <= truth[-1] <= last.high
        inside_sum += found.total.low <= sum(truth) <= found.total.high
        first = found.days[0][1]
        assert first.low is not None
        assert first.high is not None
        assert last.high - last.low > first.high - first.low
    assert inside_day / rounds == pytest.approx(CONFIDENCE, abs=0.05)
    assert inside_sum / rounds == pytest.approx(CONFIDENCE, abs=0.05)


def test_spend_is_never_negative() -> None:
    falling = _series(28, lambda day: max(0, -40 * ((day - TODAY).days + 3)))
    found = foretell(falling, TODAY, horizon_days=60)
    bands = [band for _, band in found.days] + [found.total, found.current_month, found.next_month]
    assert all(band.expected >= 0 and (band.low or 0) >= 0 for band in bands)


def test_only_the_last_eight_weeks_count_and_gaps_are_days_without_spend() -> None:
    old = dict.fromkeys(_days(100)[:40], 10**9)
    recent = {day: 700 for day in _days(DAYS_MAX) if day.weekday() < 5}
    found = foretell(old | recent, TODAY, horizon_days=7)
    assert found.complete_days == DAYS_MAX
    weekend = [band.expected for day, band in found.days if day.weekday() >= 5]
    assert weekend == pytest.approx([0, 0], abs=1)
    assert found.total.expected == pytest.approx(5 * 700, abs=5)


@pytest.mark.parametrize("today", [date(2026, 1, 31), date(2028, 2, 29), date(2026, 12, 31), date(2026, 3, 1)])
def test_the_ends_of_months(today: date) -> None:
    series = dict.fromkeys(_days(28, today), 1000)
    found = foretell(series, today)
    following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    length = ((following + timedelta(days=32)).replace(day=1) - following).days
    assert found.next_month.expected == pytest.approx(1000 * length, abs=5)
    assert found.spent_this_month == 1000 * min(28, today.day - 1)
