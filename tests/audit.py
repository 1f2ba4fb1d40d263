"""An audit log for tests, in memory. It passes the suite of the stores: `tests/conformance/test_audit.py`."""

from dataclasses import dataclass, field

from proxy.core.audit import NUMBER_MAX, Act, AuditEntry, AuditFilter, AuditHead, AuditPage, anchor, chained
from proxy.ports import StoreAway

INSTALLATION = "5f" * 16


@dataclass
class MemoryAudit:
    """The port `AuditLog`. ``away``: nothing can be written or read."""

    entries: list[AuditEntry] = field(default_factory=list)
    away: bool = False

    async def open(self) -> None:
        self._ask()

    async def append(self, act: Act) -> AuditEntry:
        self._ask()
        entry = chained(self._head(), act)
        self.entries.append(entry)
        return entry

    async def page(self, wanted: AuditFilter, limit: int, before: int | None = None) -> AuditPage:
        self._ask()
        found = [one for one in reversed(self.entries) if one.number < (before or NUMBER_MAX) and _is(one.act, wanted)]
        entries = tuple(found[:limit])
        return AuditPage(entries, entries[-1].number if entries and len(found) > limit else None)

    async def read(self, after: int, limit: int) -> tuple[AuditEntry, ...]:
        self._ask()
        return tuple(one for one in self.entries if one.number > after)[:limit]

    async def head(self) -> AuditHead:
        self._ask()
        return self._head()

    async def close(self) -> None:
        return

    def _head(self) -> AuditHead:
        last = self.entries[-1] if self.entries else None
        return AuditHead(INSTALLATION, last.number if last else 0, last.hash if last else anchor(INSTALLATION))

    def _ask(self) -> None:
        if self.away:
            raise StoreAway("the audit log is away")


def _is(act: Act, wanted: AuditFilter) -> bool:
    return (
        (wanted.actor is None or act.actor == wanted.actor)
        and (wanted.act is None or act.act == wanted.act)
        and (wanted.subject is None or act.subject == wanted.subject)
        and (wanted.account is None or act.account == wanted.account)
        and (wanted.since_us or 0) <= act.at_us < (wanted.until_us or NUMBER_MAX)
    )
