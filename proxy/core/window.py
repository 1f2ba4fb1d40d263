"""Budget windows: the day and the month of a time zone, as spans of Unix time.

A window begins at a midnight of its zone and ends where the next one begins, so windows are contiguous whatever the
clocks do: a day has 23, 24 or 25 hours. Where a zone skips midnight, the day begins when the clocks jump; where midnight
comes twice, with the first. A date that a zone skips altogether (Samoa, 2011-12-30) is a window without length.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class Period(Enum):
    """How long a budget lasts, named as the YAML names it."""

    DAILY = "daily"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True)
class Window:
    """One period. Units: Unix seconds; ``resets_at`` is the first moment that no longer belongs to it.

    Shapes: ``id`` is ``daily:2026-11-21:Europe/Paris`` or ``monthly:2026-11:UTC``. The zone is a part of it, so that a
    changed zone opens windows of its own, to be counted anew from the ledger.
    """

    id: str
    period: Period
    starts_at: int
    resets_at: int

    def holds(self, at: float) -> bool:
        return self.starts_at <= at < self.resets_at


def window_at(period: Period, zone: ZoneInfo, at: float) -> Window:
    """The window that a moment belongs to. Units: Unix seconds."""
    first = _first_day(period, datetime.fromtimestamp(at, zone).date())
    # Where clocks go back across midnight, the local date goes back too; windows do not.
    while (starts_at := _midnight(first, zone)) > at:
        first = _first_day(period, first - timedelta(days=1))
    while (resets_at := _midnight(following := _following(period, first), zone)) <= at:
        first, starts_at = following, resets_at
    name = f"{first:%Y-%m-%d}" if period is Period.DAILY else f"{first:%Y-%m}"
    return Window(f"{period.value}:{name}:{zone.key}", period, starts_at, resets_at)


def _first_day(period: Period, day: date) -> date:
    return day if period is Period.DAILY else day.replace(day=1)


def _following(period: Period, first: date) -> date:
    if period is Period.DAILY:
        return first + timedelta(days=1)
    return (first + timedelta(days=31)).replace(day=1)


def _midnight(day: date, zone: ZoneInfo) -> int:
    # fold=0: the first of two midnights; for one that does not exist, the offset before the jump, thus the jump itself.
    return int(datetime(day.year, day.month, day.day, tzinfo=zone, fold=0).timestamp())


def zone(name: str) -> ZoneInfo | None:
    """A time zone by its name; None where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
