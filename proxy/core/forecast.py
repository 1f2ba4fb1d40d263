"""What spending will be: a straight trend with a weekday pattern, and how sure that is.

The model is ordinary least squares over the last complete days: a level, a slope, and (from two weeks of data) one offset
for each weekday, the offsets adding up to nothing. Its answer comes with a prediction interval for every day and for
every sum of days, from the residuals and the parameters' own uncertainty: it widens with the horizon and with little
data. Under `DAYS_MIN` complete days there is no trend to speak of: the mean is told, without an interval, and `basis`
says so. Spend is never negative, so neither is what is told of it.

Not handled: months with a pattern of their own, holidays, growth that compounds. Eight weeks are looked at, no more, so
that an old regime is forgotten.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt
from statistics import NormalDist
from typing import Any, Final, Literal

from proxy.core import currency as currencies
from proxy.core.budget import PayerId
from proxy.core.currency import USD, Currency, figure
from proxy.core.ledger import COUNT_MAX
from proxy.core.payer import Payer
from proxy.core.rollup import Measures
from proxy.core.summary import Span, last_days
from proxy.core.window import Period

DAYS_MIN: Final = 7
DAYS_FOR_WEEKDAYS: Final = 14
DAYS_MAX: Final = 56
HORIZON_DAYS_MAX: Final = 366
CONFIDENCE: Final = 0.9  # of the interval, both sides together

_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Basis = Literal["nothing", "mean", "trend", "trend_and_weekdays"]


@dataclass(frozen=True, slots=True)
class Band:
    """Units: nano-USD. ``low`` and ``high`` are None where the data give no interval."""

    expected: int
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class Cap:
    """A budget to look out for. ``subject`` None: one that somebody asks about."""

    subject: PayerId | None
    period: Period
    nanousd: int


@dataclass(frozen=True, slots=True)
class Exhaustion:
    """The first day on which a period's spending reaches the cap; None: on no day of the horizon nor of this month."""

    cap: Cap
    on: date | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """``basis`` says what the figures rest on, ``note`` the same in a sentence where it is little.

    ``trend``: by how many nano-USD a day's spending changes from one day to the next; ``weekdays``: how far each, from
    Monday on, is from that; None where the data do not say. ``current_month``: what was spent and what is to be expected of
    its rest; ``next_month`` the whole of it.
    """

    basis: Basis
    note: str | None
    complete_days: int
    trend: int | None
    weekdays: tuple[int, ...] | None
    days: tuple[tuple[date, Band], ...]
    total: Band
    spent_this_month: int
    current_month: Band
    next_month: Band
    exhausted: tuple[Exhaustion, ...]


def looked_at(today: date) -> Span:
    """The days that `foretell` makes use of."""
    return last_days(DAYS_MAX + 1, today)


def spent_by_day(days: Iterable[tuple[int, Measures]]) -> dict[date, int]:
    """The ledger's days as `foretell` takes them."""
    return {date(1970, 1, 1) + timedelta(days=day): measured.cost_nanousd for day, measured in days}


def caps_of(payers: Iterable[Payer], subject: PayerId) -> tuple[Cap, ...]:
    """The budgets of one payer. Where somebody else pays too, that is another forecast's."""
    return tuple(
        Cap(subject, limit.period, limit.cap_nanousd)
        for payer in payers
        if payer.subject == subject
        for limit in payer.limits
    )


def foretell(spent: Mapping[date, int], today: date, *, horizon_days: int = 30, caps: Sequence[Cap] = ()) -> Forecast:
    """The days from today on. Shapes: ``spent`` nano-USD by day, today's so far among them; a missing day is nothing spent.

    Today is not over: it counts as spent, but the model does not learn from it, and what it is still to bring is what the
    model expects beyond what is there.
    """
    horizon = min(max(horizon_days, 1), HORIZON_DAYS_MAX)
    history = _history(spent, today)
    model = _fit(history)
    month_end = _month_end(today)
    next_end = _month_end(month_end + timedelta(days=1))
    this_month = sum(
        value for day, value in spent.items() if day.replace(day=1) == today.replace(day=1) and day <= today
    )
    rest = _days(today, month_end)
    following = _days(month_end + timedelta(days=1), next_end)
    upcoming = _days(today, today + timedelta(days=horizon - 1))
    so_far = spent.get(today, 0)
    days = [(day, model.band([day])) for day in _days(today, max(upcoming[-1], month_end))]
    expected = [(day, max(band.expected, so_far) if day == today else band.expected) for day, band in days]
    return Forecast(
        basis=model.basis,
        note=_note(model.basis, len(history)),
        complete_days=len(history),
        trend=model.trend,
        weekdays=model.weekdays,
        days=tuple(days[:horizon]),
        total=model.band(upcoming),
        spent_this_month=this_month,
        current_month=_above(this_month, model.band(rest), so_far),
        next_month=model.band(following),
        exhausted=tuple(Exhaustion(cap, _exhausted(cap, expected, this_month - so_far)) for cap in caps),
    )


def _exhausted(cap: Cap, expected: Sequence[tuple[date, int]], before: int) -> date | None:
    """``expected``: each day from today on, what it is to bring in all; ``before``: what this month spent until today."""
    reached = before if cap.period is Period.MONTHLY else 0
    for number, (day, value) in enumerate(expected):
        if number and (cap.period is Period.DAILY or day.day == 1):
            reached = 0
        reached += value
        if reached >= cap.nanousd:
            return day
    return None


def document(found: Forecast, currency: Currency = USD, account: str | None = None) -> dict[str, Any]:
    """The document of `/admin/analytics/forecast` and of `penstock ledger forecast --json`."""
    first, last = found.days[0][0], found.days[-1][0]
    return {
        "from": first.isoformat(),
        "to": last.isoformat(),
        "account": account,
        "currency": currencies.document(currency),
        "basis": found.basis,
        "note": found.note,
        "complete_days": found.complete_days,
        "confidence": CONFIDENCE,
        **_money("trend_per_day", found.trend, currency),
        "weekdays": None
        if found.weekdays is None
        else {name: _money("offset", value, currency) for name, value in zip(_WEEKDAYS, found.weekdays, strict=True)},
        **_money("spent_this_month", found.spent_this_month, currency),
        "current_month": {"month": f"{first:%Y-%m}", **_band(found.current_month, currency)},
        "next_month": {"month": f"{_month_end(first) + timedelta(days=1):%Y-%m}", **_band(found.next_month, currency)},
        "total": _band(found.total, currency),
        "days": [{"day": day.isoformat(), **_band(band, currency)} for day, band in found.days],
        "budgets": [
            {
                "subject": one.cap.subject,
                "period": one.cap.period.value,
                **_money("limit", one.cap.nanousd, currency),
                "runs_out": None if one.on is None else one.on.isoformat(),
            }
            for one in found.exhausted
        ],
    }


def _band(band: Band, currency: Currency) -> dict[str, Any]:
    return {
        **_money("expected", band.expected, currency),
        **_money("low", band.low, currency),
        **_money("high", band.high, currency),
    }


def _money(name: str, nanousd: int | None, currency: Currency) -> dict[str, Any]:
    return {f"{name}_nanousd": nanousd, name: None if nanousd is None else figure(nanousd, currency)}


def _above(spent: int, rest: Band, so_far: int) -> Band:
    """What was spent, and the rest of the month beyond what today already brought; never less than was spent."""

    def reached(value: int) -> int:
        return spent + max(0, value - so_far)

    return Band(
        reached(rest.expected),
        None if rest.low is None else reached(rest.low),
        None if rest.high is None else reached(rest.high),
    )


def _note(basis: Basis, complete: int) -> str | None:
    match basis:
        case "nothing":
            return "No day is complete yet, so there is nothing to forecast from."
        case "mean":
            return f"Only {complete} complete days, fewer than {DAYS_MIN}: the mean, without trend or interval."
        case "trend":
            return f"Only {complete} complete days, fewer than {DAYS_FOR_WEEKDAYS}: a trend without weekdays."
        case "trend_and_weekdays":
            return None


def _history(spent: Mapping[date, int], today: date) -> list[tuple[date, int]]:
    """The complete days to learn from: at most `DAYS_MAX`, from the first on which anything was spent."""
    used = [day for day, value in spent.items() if day < today and value > 0]
    if not used:
        return []
    first = max(min(used), today - timedelta(days=DAYS_MAX))
    return [(day, spent.get(day, 0)) for day in _days(first, today - timedelta(days=1))]


@dataclass(frozen=True, slots=True)
class _Model:
    """``features`` of a day times ``weights``; ``spread`` is the residual deviation, None without an interval.

    ``inverse``: of the normal matrix, for the uncertainty of the weights; ``t``: Student's quantile; ``scale``: the days
    in which the trend's feature grows by one.
    """

    basis: Basis
    features: Callable[[date], list[float]]
    weights: list[float]
    inverse: list[list[float]]
    spread: float | None
    t: float
    scale: int = 1

    @property
    def trend(self) -> int | None:
        return round(self.weights[1] / self.scale) if len(self.weights) > 1 else None

    @property
    def weekdays(self) -> tuple[int, ...] | None:
        offsets = self.weights[2:]
        return tuple(round(value) for value in (*offsets, -sum(offsets))) if offsets else None

    def band(self, days: Sequence[date]) -> Band:
        """The sum over days. Its variance: each day's own, and that of the weights along the sum of features."""
        rows = [self.features(day) for day in days]
        daily = [sum(map(_times, row, self.weights)) for row in rows]
        expected = sum(max(0.0, value) for value in daily)
        if self.spread is None:
            return Band(_whole(expected), None, None)
        along = [sum(column) for column in zip(*rows, strict=True)] if rows else []
        leaning = sum(value * sum(map(_times, line, along)) for value, line in zip(along, self.inverse, strict=False))
        margin = self.t * self.spread * sqrt(len(rows) + max(0.0, leaning))
        return Band(_whole(expected), _whole(expected - margin), _whole(expected + margin))


def _fit(history: Sequence[tuple[date, int]]) -> _Model:
    count = len(history)
    if count < DAYS_MIN:
        mean = sum(value for _, value in history) / count if count else 0.0
        return _Model("mean" if count else "nothing", lambda _: [1.0], [mean], [], None, 0.0)
    weekly = count >= DAYS_FOR_WEEKDAYS
    origin = history[0][0]

    def features(day: date) -> list[float]:
        trend = [1.0, (day - origin).days / count]  # scaled, so that the normal matrix is well conditioned
        return trend + _weekday(day) if weekly else trend

    rows = [features(day) for day, _ in history]
    values = [float(value) for _, value in history]
    size = len(rows[0])
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(size)] for i in range(size)]
    inverse = _inverse(normal)
    moments = [sum(row[i] * value for row, value in zip(rows, values, strict=True)) for i in range(size)]
    weights = [sum(map(_times, line, moments)) for line in inverse]
    residuals = [value - sum(map(_times, row, weights)) for row, value in zip(rows, values, strict=True)]
    free = count - size
    spread = sqrt(sum(value * value for value in residuals) / free)
    return _Model(
        "trend_and_weekdays" if weekly else "trend",
        features,
        weights,
        inverse,
        spread,
        _student(CONFIDENCE, free),
        count,
    )


def _weekday(day: date) -> list[float]:
    """Six columns whose weights are offsets of Monday to Saturday; Sunday's is what makes the seven add up to nothing."""
    number = day.weekday()
    return [-1.0] * 6 if number == 6 else [float(number == column) for column in range(6)]


def _inverse(matrix: list[list[float]]) -> list[list[float]]:
    """Gauss and Jordan, with pivots. The normal matrix of at least `DAYS_MIN` consecutive days is never singular."""
    size = len(matrix)
    wide = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda line: abs(wide[line][column]))
        wide[column], wide[pivot] = wide[pivot], wide[column]
        scale = wide[column][column]
        wide[column] = [value / scale for value in wide[column]]
        for line in range(size):
            if line != column:
                factor = wide[line][column]
                wide[line] = [value - factor * own for value, own in zip(wide[line], wide[column], strict=True)]
    return [row[size:] for row in wide]


def _student(confidence: float, free: int) -> float:
    """Student's two-sided quantile, by the expansion of Cornish and Fisher: within 2 % from 5 degrees of freedom on."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / free + second / free**2 + third / free**3


def _whole(nanousd: float) -> int:
    """Never negative; and as bounded as the books are, so that any JSON holds it."""
    return min(max(0, round(nanousd)), COUNT_MAX)


def _times(a: float, b: float) -> float:
    return a * b


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _month_end(day: date) -> date:
    following = day.replace(day=28) + timedelta(days=4)
    return following - timedelta(days=following.day)
