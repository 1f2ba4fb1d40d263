"""Budget windows: rows of days that are not like others, and what holds for every zone and moment."""

from datetime import date, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.window import Period, window_at

HOUR = 3600
ZONES = sorted(
    zone for zone in available_timezones() if not zone.startswith(("posix/", "right/")) and zone != "Factory"
)
MOMENTS = st.integers(min_value=631152000, max_value=2524608000)  # 1990 to 2050


def at(zone: str, text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("zone", "moment", "period", "window_id", "hours"),
    [
        ("UTC", "2026-11-21T00:00:00", Period.DAILY, "daily:2026-11-21:UTC", 24),
        ("UTC", "2026-11-21T23:59:59", Period.DAILY, "daily:2026-11-21:UTC", 24),
        ("Europe/Paris", "2026-03-29T12:00:00", Period.DAILY, "daily:2026-03-29:Europe/Paris", 23),
        ("Europe/Paris", "2026-10-25T12:00:00", Period.DAILY, "daily:2026-10-25:Europe/Paris", 25),
        ("America/Toronto", "2026-03-08T01:59:59", Period.DAILY, "daily:2026-03-08:America/Toronto", 23),
        ("America/Toronto", "2026-11-01T23:00:00", Period.DAILY, "daily:2026-11-01:America/Toronto", 25),
        ("Australia/Lord_Howe", "2026-10-04T12:00:00", Period.DAILY, "daily:2026-10-04:Australia/Lord_Howe", 23.5),
        # Midnight is skipped: the clocks jump from 00:00 to 01:00.
        ("America/Santiago", "2026-09-06T12:00:00", Period.DAILY, "daily:2026-09-06:America/Santiago", 23),
        # The day ends twice: the clocks go back from 24:00 to 23:00.
        ("America/Santiago", "2026-04-04T12:00:00", Period.DAILY, "daily:2026-04-04:America/Santiago", 25),
        # Midnight comes twice: the clocks go back from 01:00 to 00:00.
        ("America/Havana", "2026-11-01T12:00:00", Period.DAILY, "daily:2026-11-01:America/Havana", 25),
        # A date that does not exist lies between these two.
        ("Pacific/Apia", "2011-12-29T12:00:00", Period.DAILY, "daily:2011-12-29:Pacific/Apia", 24),
        ("Pacific/Apia", "2011-12-31T12:00:00", Period.DAILY, "daily:2011-12-31:Pacific/Apia", 24),
        ("UTC", "2026-11-30T23:59:59", Period.MONTHLY, "monthly:2026-11:UTC", 30 * 24),
        ("UTC", "2028-02-29T12:00:00", Period.MONTHLY, "monthly:2028-02:UTC", 29 * 24),
        ("UTC", "2026-12-31T23:59:59", Period.MONTHLY, "monthly:2026-12:UTC", 31 * 24),
        ("Europe/Paris", "2026-03-01T00:00:00", Period.MONTHLY, "monthly:2026-03:Europe/Paris", 31 * 24 - 1),
        ("Europe/Paris", "2026-10-31T23:59:59", Period.MONTHLY, "monthly:2026-10:Europe/Paris", 31 * 24 + 1),
    ],
)
def test_a_window_is_as_long_as_the_clocks_make_it(
    zone: str, moment: str, period: Period, window_id: str, hours: float
) -> None:
    window = window_at(period, ZoneInfo(zone), at(zone, moment))
    assert window.id == window_id
    assert (window.resets_at - window.starts_at) / HOUR == hours


def test_clocks_that_go_back_over_midnight_do_not_take_the_window_back() -> None:
    """St. John's, until 2011, put its clocks back at 00:01: the first minute of the new day came first."""
    zone = ZoneInfo("America/St_Johns")
    first_midnight = at("America/St_Johns", "2010-11-07T00:00:00")
    local_dates = [datetime.fromtimestamp(first_midnight + minutes * 60, zone).day for minutes in (-1, 0, 1, 59, 61)]
    assert local_dates == [6, 7, 6, 6, 7]
    ids = [window_at(Period.DAILY, zone, first_midnight + minutes * 60).id for minutes in (-1, 0, 1, 59, 61)]
    assert [one.split(":")[1] for one in ids] == ["2010-11-06", *["2010-11-07"] * 4]


@given(zone=st.sampled_from(ZONES), moment=MOMENTS, period=st.sampled_from(Period))
def test_windows_are_contiguous_and_hold_their_moments(zone: str, moment: int, period: Period) -> None:
    info = ZoneInfo(zone)
    window = window_at(period, info, moment)
    assert window.holds(moment)
    assert window_at(period, info, window.starts_at) == window
    assert window_at(period, info, window.resets_at - 0.001) == window
    following = window_at(period, info, window.resets_at)
    assert following.starts_at == window.resets_at
    assert following.id > window.id


@given(zone=st.sampled_from(ZONES), moment=MOMENTS)
def test_the_slow_reference_finds_the_same_beginning(zone: str, moment: int) -> None:
    """The first minute of the local date that the window is named after, found by looking at each minute before noon."""
    info = ZoneInfo(zone)
    window = window_at(Period.DAILY, info, moment)
    day = date.fromisoformat(window.id.split(":")[1])
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=info).timestamp()) // 60
    first = min(
        minute for minute in range(noon - 20 * 60, noon) if datetime.fromtimestamp(minute * 60, info).date() >= day
    )
    assert window.starts_at == first * 60
