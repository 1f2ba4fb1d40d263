"""`GET /admin/budgets`: every budget's book of the period that is now: used, held, left."""

from datetime import UTC, datetime
from typing import Any, Final

from proxy.core import currency as currencies
from proxy.core.budget import account_subject
from proxy.core.currency import USD, Currency, figure
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.own import account_asked
from proxy.edge.admin.values import text

# What is told, and what `Budgets.snapshot` calls it.
_AMOUNTS: Final = {
    "used": "spent_nanousd",
    "held": "held_nanousd",
    "left": "left_nanousd",
    "limit": "cap_nanousd",
    "alert_at": "alert_nanousd",
}


async def listed(ask: Ask) -> dict[str, Any]:
    """The books of all who pay, or of one account (its own; not the whole proxy's)."""
    account = account_asked(ask.account, text(ask.query, "account"))
    table, now = ask.runtime.table, ask.runtime.wall()
    payers = table.budgets.payers()
    if account is not None:
        subject = account_subject(account)
        payers = tuple(payer for payer in payers if payer.subject == subject)
    rows = await ask.runtime.budgets.snapshot(payers, now)
    currency = table.pricing.currency
    return {
        "account": account,
        "currency": currencies.document(currency),
        "budgets": [_told(row, currency, now) for row in rows],
    }


def _told(row: dict[str, Any], currency: Currency, now: float) -> dict[str, Any]:
    """``account``: whose it is, None for the whole proxy's. Amounts that nobody knows at the moment are None."""
    kind, _, name = row["subject"].partition(":")
    told: dict[str, Any] = {
        "subject": row["subject"],
        "account": name if kind == "account" else None,
        "period": row["period"],
        "window": row["window"],
        "resets_at": datetime.fromtimestamp(row["resets_at"], UTC).isoformat().replace("+00:00", "Z"),
        "resets_in_s": max(0, round(row["resets_at"] - now)),
    }
    for name, key in _AMOUNTS.items():
        told |= _amounts(name, row[key], currency)
    return told | {"alert": row["alert"], "seen": row["seen"], "slice_left_nanousd": row["slice_left_nanousd"]}


def _amounts(name: str, nanousd: int | None, currency: Currency) -> dict[str, Any]:
    """Exact, in USD, and in the currency."""
    return {
        f"{name}_nanousd": nanousd,
        f"{name}_usd": None if nanousd is None else figure(nanousd, USD),
        name: None if nanousd is None else figure(nanousd, currency),
    }
