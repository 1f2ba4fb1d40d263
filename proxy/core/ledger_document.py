"""A row as people and scripts read it: the same JSON from the commands and from the admin API."""

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from proxy.core.currency import Currency, figure
from proxy.core.ledger import COLUMNS, LedgerRow

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_values: Final = attrgetter(*COLUMNS)


def document(row: LedgerRow, currency: Currency | None = None) -> dict[str, Any]:
    """A row's fields, the two times in words too, tags as an object; with a currency, the amounts in it beside nano-USD."""
    told: dict[str, Any] = {
        **dict(zip(COLUMNS, _values(row), strict=True)),
        "started": clock(row.started_us),
        "ended": clock(row.ended_us),
        "tags": dict(row.tags),
    }
    if currency is not None:
        told["cost"] = figure(row.cost_nanousd, currency)
        told["saved"] = figure(row.saved_nanousd, currency)
        told["baseline"] = None if row.baseline_nanousd is None else figure(row.baseline_nanousd, currency)
    return told


def clock(at_us: int) -> str:
    """Unix microseconds as `2026-11-21T09:30:00.000000Z`."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
