"""`/admin/ledger`: the rows, newest first, a page at a time; and one of them."""

from typing import Any, Final, get_args

from proxy.core import currency as currencies
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.ledger import LedgerFilter, Outcome
from proxy.core.ledger_document import document
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.edge.admin.own import account_asked
from proxy.edge.admin.reading import answered
from proxy.edge.admin.values import cursor, moment_us, number, one_of, tag, text

ROWS: Final = 100
ROWS_MAX: Final = 1000
STATUS_MAX: Final = 999
OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
QUERY: Final = frozenset(
    ("account", "key", "route", "provider", "model", "outcome", "status", "code", "tag", "since", "until")
) | {"limit", "after"}
_ID_CHARS_TOLD_MAX: Final = 80


async def rows(ask: Ask) -> dict[str, Any]:
    """``after`` of a page is what the next one asks with; None on the last."""
    query = ask.query
    wanted = _wanted(ask)
    limit = number(query, "limit", 1, ROWS_MAX) or ROWS
    page = await answered(ask.runtime.ledger.page(wanted, limit, cursor(query, "after")))
    currency = ask.runtime.table.pricing.currency
    return {
        "currency": currencies.document(currency),
        "rows": [document(row, currency) for row in page.rows],
        "after": None if page.after is None else str(page.after),
    }


async def one(ask: Ask) -> dict[str, Any]:
    """By its own id, or else the latest with this request id."""
    given = ask.steps["id"]
    row = await answered(ask.runtime.ledger.row(given, ask.account))
    if row is None:
        raise Rejected(
            Failure(
                FailureKind.UNKNOWN_PATH,
                f"The ledger has no row with the id or request id {given[:_ID_CHARS_TOLD_MAX]!r}. An answer's is in its "
                "x-request-id header; its row comes within a second of its end, and goes with the retention.",
            )
        )
    currency = ask.runtime.table.pricing.currency
    return {"currency": currencies.document(currency), "row": document(row, currency)}


def _wanted(ask: Ask) -> LedgerFilter:
    query = ask.query
    wanted = LedgerFilter(
        account=account_asked(ask.account, text(query, "account")),
        virtual_key=text(query, "key"),
        route=text(query, "route"),
        provider=text(query, "provider"),
        model=text(query, "model"),
        outcome=one_of(query, "outcome", OUTCOMES),
        status=number(query, "status", 0, STATUS_MAX),
        code=text(query, "code"),
        tag=tag(query, "tag"),
        since_us=moment_us(query, "since"),
        until_us=moment_us(query, "until"),
    )
    if wanted.since_us is not None and wanted.until_us is not None and wanted.since_us >= wanted.until_us:
        raise bad("'since' must be before 'until', which is not included.", "since")
    return wanted
