"""`GET /admin/audit`: what was done to the proxy and by whom, newest first, a page at a time."""

from typing import Any, Final

from proxy.core.audit import NUMBER_MAX, AuditFilter, document
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.edge.admin.own import account_asked
from proxy.edge.admin.reading import answered
from proxy.edge.admin.values import moment_us, number, text

ENTRIES: Final = 100
ENTRIES_MAX: Final = 1000
QUERY: Final = frozenset({"account", "actor", "act", "subject", "since", "until", "limit", "after"})


async def entries(ask: Ask) -> dict[str, Any]:
    """``after`` of a page is what the next one asks with; None on the last. ``head``: to be noted elsewhere."""
    query = ask.query
    wanted = AuditFilter(
        actor=text(query, "actor"),
        act=text(query, "act"),
        subject=text(query, "subject"),
        account=account_asked(ask.account, text(query, "account")),
        since_us=moment_us(query, "since"),
        until_us=moment_us(query, "until"),
    )
    if wanted.since_us is not None and wanted.until_us is not None and wanted.since_us >= wanted.until_us:
        raise bad("'since' must be before 'until', which is not included.", "since")
    limit = number(query, "limit", 1, ENTRIES_MAX) or ENTRIES
    page = await answered(ask.audit.page(wanted, limit, number(query, "after", 1, NUMBER_MAX)), "audit log")
    head = await answered(ask.audit.head(), "audit log")
    return {
        "entries": [document(entry) for entry in page.entries],
        "after": None if page.after is None else str(page.after),
        "head": {"installation": head.installation, "number": head.number, "hash": head.hash},
    }
