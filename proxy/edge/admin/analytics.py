"""`/admin/analytics/*`: what was used and what it cost, and what spending will be. Days are UTC."""

import asyncio
from datetime import UTC, date, datetime
from typing import Any, Final

from proxy.core import forecast as forecasts
from proxy.core import summary as summaries
from proxy.core.budget import PROXY, account_subject
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.own import account_asked
from proxy.edge.admin.reading import answered
from proxy.edge.admin.values import number, text

DAYS_MAX: Final = 366
DAYS: Final = 7
HORIZON_DAYS: Final = 30
VALUES_MAX: Final = 1000  # of a dimension: 90 us and 700 bytes each, and clients choose tags

# A document of many values takes longer to write than an event may wait, so a thread does it.


async def summary(ask: Ask) -> dict[str, Any]:
    days = number(ask.query, "days", 1, DAYS_MAX) or DAYS
    account = account_asked(ask.account, text(ask.query, "account"))
    span = summaries.last_days(days, _today(ask))
    found = await answered(ask.runtime.ledger.summary(span, account))
    currency = ask.runtime.table.pricing.currency
    return await asyncio.to_thread(summaries.document, found, currency, values_max=VALUES_MAX)


async def forecast(ask: Ask) -> dict[str, Any]:
    """Of everybody with the budgets of the whole proxy, or of an account with its own."""
    horizon_days = number(ask.query, "horizon_days", 1, forecasts.HORIZON_DAYS_MAX) or HORIZON_DAYS
    account, today, table = account_asked(ask.account, text(ask.query, "account")), _today(ask), ask.runtime.table
    days = await answered(ask.runtime.ledger.days(forecasts.looked_at(today), account))
    caps = forecasts.caps_of(table.budgets.payers(), PROXY if account is None else account_subject(account))

    def foretold() -> dict[str, Any]:
        found = forecasts.foretell(forecasts.spent_by_day(days), today, horizon_days=horizon_days, caps=caps)
        return forecasts.document(found, table.pricing.currency, account)

    return await asyncio.to_thread(foretold)


def _today(ask: Ask) -> date:
    return datetime.fromtimestamp(ask.runtime.wall(), UTC).date()
