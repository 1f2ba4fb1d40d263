"""Reports: roll-ups as the figures that people read, per dimension and day."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from proxy.core import currency as currencies
from proxy.core import histogram
from proxy.core.currency import USD, Currency, figure
from proxy.core.rollup import ALL, DIMENSIONS, Measures

_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Span:
    """Whole days, both included. Units: days since 1970-01-01 UTC."""

    first_day: int
    last_day: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Shapes: ``by`` holds every dimension, its values by cost, the dearest first; ``days`` only days with rows."""

    span: Span
    account: str | None
    total: Measures
    by: Mapping[str, tuple[tuple[str, Measures], ...]]
    days: tuple[tuple[int, Measures], ...]


def summarise(
    span: Span,
    account: str | None,
    sums: Iterable[tuple[str, str, Measures]],
    days: Iterable[tuple[int, Measures]],
) -> Summary:
    """A summary of sums per dimension and value, and of the sums of each day."""
    total = Measures()
    by: dict[str, list[tuple[str, Measures]]] = {dimension: [] for dimension in DIMENSIONS}
    for dimension, value, measured in sums:
        if dimension == ALL:
            total = measured
        else:
            by[dimension].append((value, measured))
    ordered = {
        dimension: tuple(sorted(values, key=lambda one: (-one[1].cost_nanousd, -one[1].calls, one[0])))
        for dimension, values in by.items()
    }
    return Summary(span, account, total, ordered, tuple(sorted(days)))


def day_text(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def day_number(day: date) -> int:
    return (day - _EPOCH).days


def last_days(count: int, today: date) -> Span:
    """So many days up to today, which is one of them."""
    last = day_number(today)
    return Span(last - count + 1, last)


def document(summary: Summary, currency: Currency = USD, *, values_max: int | None = None) -> dict[str, Any]:
    """The document of `/admin/analytics/summary` and of `penstock ledger summary --json`.

    Shapes: of each dimension the dearest ``values_max`` are told; ``left_out`` says how many more there are.
    """
    return {
        "from": day_text(summary.span.first_day),
        "to": day_text(summary.span.last_day),
        "account": summary.account,
        "currency": currencies.document(currency),
        "total": figures(summary.total, currency),
        "by": {
            dimension: [
                {"value": value or None, **figures(measured, currency)} for value, measured in values[:values_max]
            ]
            for dimension, values in summary.by.items()
        },
        "left_out": {
            dimension: len(values) - values_max
            for dimension, values in summary.by.items()
            if values_max is not None and len(values) > values_max
        },
        "days": [{"day": day_text(day), **figures(measured, currency)} for day, measured in summary.days],
    }


def figures(m: Measures, currency: Currency = USD) -> dict[str, Any]:
    """What is told of some rows. Units: in the names; ``cost`` and its like in the currency; rates are shares of 1."""
    return {
        "calls": m.calls,
        "tokens": {
            "input": m.input_tokens,
            "cached": m.cached_tokens,
            "cache_write": m.cache_write_tokens,
            "output": m.output_tokens,
            "reasoning": m.reasoning_tokens,
        },
        "cost_nanousd": m.cost_nanousd,
        "cost": figure(m.cost_nanousd, currency),
        "saved_by_cache_nanousd": m.saved_nanousd,
        "saved_by_cache": figure(m.saved_nanousd, currency),
        "baseline_nanousd": m.baseline_nanousd,
        "saved_against_baseline_nanousd": m.baseline_nanousd - m.baseline_cost_nanousd,
        "saved_against_baseline": figure(m.baseline_nanousd - m.baseline_cost_nanousd, currency),
        "estimated_calls": m.estimated,
        "unpriced_calls": m.unpriced,
        "error_rate": share(m.failed, m.calls),
        "refused_rate": share(m.refused, m.calls),
        "cancelled_rate": share(m.cancelled, m.calls),
        "fallback_rate": share(m.fallbacks, m.calls),
        "cache_hit_rate": share(m.cache_hits, m.cache_lookups),
        "first_event_ms": _quantiles(m.first_event),
        "total_ms": _quantiles(m.total),
        "tokens_per_s": tokens_per_s(m),
    }


def share(part: int, whole: int) -> float | None:
    """None where there is nothing to take a share of: 0 of 0 is no success."""
    return round(part / whole, 6) if whole else None


def tokens_per_s(m: Measures) -> float | None:
    return round(m.generated_tokens * 1000 / m.generating_ms, 2) if m.generating_ms else None


def _quantiles(packed: int) -> dict[str, float | None]:
    return {"p50": histogram.quantile(packed, 0.5), "p95": histogram.quantile(packed, 0.95)}
