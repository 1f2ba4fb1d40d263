"""Which rates hold: by size, by day, by the time of day; and what may hold within a while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.tariff import DAY_S, Period, Rates, Tariff, Tier, flat, rates


def period(name: int, since_s: int | None = None, daily: tuple[int, int] | None = None) -> Period:
    """A period to be told by its input rate."""
    return Period((Tier(0, rates(input=name)),), since_s, daily)


def named(tariff: Tariff, at_s: int) -> int:
    return tariff.rates(at_s, 0).input


def test_a_kind_without_a_rate_costs_what_its_whole_does() -> None:
    assert rates(input=3, output=15) == Rates(3, 15, 3, 3, 3, 15, 3, 15, 3, 15, 0, 0, 0, 0, 0)
    assert rates(input=3, output=15, cache_write=4).cache_write_1h == 4
    assert rates(input=3, output=15, cached=0).cached == 0


@pytest.mark.parametrize(
    ("input_tokens", "rate"), [(0, 1), (32_000, 1), (32_001, 2), (128_000, 2), (128_001, 3), (10**9, 3)]
)
def test_a_tier_holds_above_its_size(input_tokens: int, rate: int) -> None:
    tiers = (Tier(0, rates(input=1)), Tier(32_000, rates(input=2)), Tier(128_000, rates(input=3)))
    assert Tariff((Period(tiers),)).rates(0, input_tokens).input == rate


def test_a_price_changes_at_midnight_utc_of_its_day() -> None:
    tariff = Tariff((period(1), period(2, since_s=5 * DAY_S), period(3, since_s=9 * DAY_S)))
    assert [named(tariff, at) for at in (0, 5 * DAY_S - 1, 5 * DAY_S, 9 * DAY_S - 1, 9 * DAY_S)] == [1, 1, 2, 2, 3]


def test_the_first_holds_where_none_does() -> None:
    assert named(Tariff((period(1, since_s=100), period(2, since_s=200))), 0) == 1


@pytest.mark.parametrize(
    ("second", "rate"), [(0, 2), (3599, 2), (3600, 1), (79_199, 1), (79_200, 2), (DAY_S - 1, 2), (7 * DAY_S + 10, 2)]
)
def test_hours_go_over_midnight(second: int, rate: int) -> None:
    assert named(Tariff((period(1), period(2, daily=(22 * 3600, 3600)))), second) == rate


def test_of_two_that_hold_the_last_one_counts() -> None:
    tariff = Tariff((period(1), period(2, since_s=DAY_S), period(3, daily=(0, 3600))))
    assert [named(tariff, at) for at in (0, 3600, DAY_S, DAY_S + 3600)] == [3, 1, 3, 2]


def test_what_may_hold_within_a_while() -> None:
    tariff = Tariff((period(1), period(2, since_s=DAY_S), period(3, daily=(0, 3600))))

    def within(start_s: int, end_s: int) -> set[int]:
        return {one.tiers[0].rates.input for one in tariff.within(start_s, end_s)}

    assert within(7200, 7200) == {1}
    assert within(7200, DAY_S - 1) == {1}
    assert within(7200, DAY_S) == {1, 3}
    assert within(7200, DAY_S + 3599) == {1, 3}
    assert within(7200, DAY_S + 3600) == {1, 2, 3}
    assert flat(rates(input=1)).within(0, 10**9) == flat(rates(input=1)).periods


_MINUTE = st.integers(0, 24 * 60 - 1).map(lambda minute: minute * 60)


@given(data=st.data(), start=st.integers(0, 3 * 24 * 60), minutes=st.integers(0, 2 * 24 * 60))
def test_nothing_holds_within_a_while_that_was_not_named(data: st.DataObject, start: int, minutes: int) -> None:
    periods = [period(0)]
    for name in range(1, data.draw(st.integers(1, 4))):
        since_s = data.draw(st.none() | st.integers(0, 4 * 24 * 60).map(lambda minute: minute * 60))
        periods.append(period(name, since_s, data.draw(st.none() | st.tuples(_MINUTE, _MINUTE))))
    tariff = Tariff(tuple(periods))
    # Everything changes on a minute, so every minute and the last second tell all.
    seconds = [*range(start * 60, (start + minutes) * 60, 60), (start + minutes) * 60]
    assert set(tariff.within(seconds[0], seconds[-1])) == {tariff.period(second) for second in seconds}
