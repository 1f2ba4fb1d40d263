"""`/admin/keys`: virtual keys, made, listed, changed, rotated and revoked. A key is told whole once, when it is made.

Whoever asks with a virtual key sees the keys of its own account and nothing of others, not even that they are there; and
makes or touches none that is stronger than the one that asks (`core/key_rights`).
"""

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from proxy.core import key_record, key_rights, virtual_key
from proxy.core.event import EventKind
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.key_record import GRACE_S_MAX, KeyRecord
from proxy.core.payer import BudgetTable
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.edge.admin.key_fields import CHANGED_WITH, CREATED_WITH, fields_of
from proxy.edge.admin.values import number, one_of, text
from proxy.phases.key_ring import AGAIN_S, KEYS_MAX, KeyRing
from proxy.ports import KeptKey, KeyCursor, StoreAway, StoreUnusable
from proxy.terms import DEFAULT_ACCOUNT, AccountId, NanoUsd

QUERY: Final = frozenset({"account", "state", "limit", "after"})
CREATE: Final = CREATED_WITH
CHANGE: Final = CHANGED_WITH
ROTATE: Final = frozenset({"grace_s"})
PAGE: Final = 100
PAGE_MAX: Final = 1000
TRIES: Final = 5  # of a change that others were quicker with
LOOKED_THROUGH_MAX: Final = 20  # pages, for one of a state that few keys are in
STATES: Final = ("active", "expired", "revoked")
_CURSOR: Final = re.compile(r"([0-9]{1,15})-([0-9A-Za-z]{1,32})", re.ASCII)

_Result = TypeVar("_Result")
_Change = Callable[[KeyRecord], KeyRecord]


async def listed(ask: Ask) -> dict[str, Any]:
    """The newest first. ``next``: what gives the page that follows, as `after`; None where it is the last."""
    ring, seen = _ring(ask), key_rights.account_seen(ask.key)
    account, state = text(ask.query, "account"), one_of(ask.query, "state", STATES)
    if seen is not None and account not in (None, seen):
        return {"keys": [], "next": None}
    wanted = AccountId(account) if account is not None else seen
    limit = number(ask.query, "limit", 1, PAGE_MAX) or PAGE
    after, now, found = _cursor(ask.query.get("after")), ask.runtime.wall(), list[dict[str, Any]]()
    for _ in range(LOOKED_THROUGH_MAX):
        page = await _answered(ring.store.page(limit - len(found), after, wanted))
        told = [_told(kept, now) for kept in page.keys]
        found += [one for one in told if state is None or one["state"] == state]
        after = page.next
        if after is None or len(found) >= limit:
            break
    return {"keys": found, "next": None if after is None else f"{after.created_at}-{after.id}"}


async def shown(ask: Ask) -> dict[str, Any]:
    return {"key": _told(await _kept(ask), ask.runtime.wall())}


async def create(ask: Ask) -> dict[str, Any]:
    """``secret`` is the key, whole: it is nowhere kept."""
    ring, actor, now = _ring(ask), ask.key, int(ask.runtime.wall())
    if "name" not in ask.body:
        raise bad("'name' is missing: say what the key is for.", "name")
    if ring.state.keys >= KEYS_MAX:
        raise bad(f"There are {KEYS_MAX} keys, and no more can be made. Revoke those that nobody uses.")
    fields = fields_of(ask.body)
    fields.setdefault("account", DEFAULT_ACCOUNT if actor is None else actor.account)
    if actor is not None:
        fields.setdefault("cache", actor.cache)
    made = virtual_key.make()
    record = KeyRecord(
        id=made.id,
        hash=ring.peppers.current.hash_of(made.id, made.secret),
        last=made.last,
        created_at=now,
        created_by=_by(ask),
        **fields,
    )
    _refuse_meaningless(record, fields, ask.runtime.table.budgets, now)
    _refuse_excess(key_rights.excess(actor, record))
    if not await _answered(ring.store.create(record)):
        raise RuntimeError("a new key's id is taken, which happens once in 10^21 times")
    await ring.changed()
    _tell(ask, "made", record)
    return {"secret": made.text, "key": _document(record, now)}


async def change(ask: Ask) -> dict[str, Any]:
    """What the body does not name stays as it is."""
    now = int(ask.runtime.wall())
    if not ask.body:
        await _kept(ask)
        raise bad(f"Say what to change: {', '.join(sorted(CHANGE))}.")
    fields = fields_of(ask.body)

    def changed(record: KeyRecord) -> KeyRecord:
        _refuse_revoked(record)
        after = replace(record, **fields)
        _refuse_meaningless(after, fields, ask.runtime.table.budgets, now)
        return after

    return {"key": _document(_tell(ask, "changed", await _swapped(ask, changed)), now)}


async def revoke(ask: Ask) -> dict[str, Any]:
    """When it answers, this process lets nobody in with the key any more; the others within a second."""
    now = int(ask.runtime.wall())
    gone = await _swapped(ask, lambda record: key_record.revoked(record, now))
    return {"key": _document(_tell(ask, "revoked", gone), now)}


async def rotate(ask: Ask) -> dict[str, Any]:
    """A new secret under the same id. The old one is good for ``grace_s`` more; 0 where it is left out."""
    ring, now = _ring(ask), int(ask.runtime.wall())
    grace_s = ask.body.get("grace_s", 0)
    if not isinstance(grace_s, int) or isinstance(grace_s, bool) or not 0 <= grace_s <= GRACE_S_MAX:
        raise bad(f"'grace_s' must be a whole number of seconds from 0 to {GRACE_S_MAX}.", "grace_s")
    known = await _kept(ask)
    made = virtual_key.make(known.id)

    def rotated(record: KeyRecord) -> KeyRecord:
        _refuse_revoked(record)
        return key_record.rotated(record, made, ring.peppers.current, now, grace_s)

    return {"secret": made.text, "key": _document(_tell(ask, "rotated", await _swapped(ask, rotated)), now)}


async def _swapped(ask: Ask, change: _Change) -> KeyRecord:
    """Change the key that the path names, whoever else changes it meanwhile. Raises `Rejected`."""
    ring = _ring(ask)
    for _ in range(TRIES):
        kept = await _kept(ask)
        before = kept.record
        if before is None:
            raise bad("The key cannot be read by this version of Penstock: a newer one has made or changed it.")
        after = change(before)
        _refuse_excess(key_rights.excess_of_change(ask.key, before, after))
        if after == before or await _answered(ring.store.swap(after, kept.revision)):
            await ring.changed()
            return after
    raise Rejected(
        Failure(FailureKind.STORE_UNAVAILABLE, "Others change this key all the time; ask again.", retry_after_s=1)
    )


def _tell(ask: Ask, act: str, record: KeyRecord) -> KeyRecord:
    """Those who follow the events."""
    if ask.runtime.events is not None:
        ask.runtime.events.emit(EventKind.KEY, act=act, id=record.id)
    return record


async def _kept(ask: Ask) -> KeptKey:
    """The key that the path names, where who asks may know of it. Raises `Rejected`."""
    ring, given = _ring(ask), ask.steps["id"]
    key_id = virtual_key.id_from(given)
    kept = None
    if key_id is not None:
        kept = await _answered(ring.store.get(key_id, key_rights.account_seen(ask.key)))
    if kept is None:
        raise Rejected(
            Failure(FailureKind.VIRTUAL_KEY_UNKNOWN, "There is no key with this id. Ids are in the list of keys.")
        )
    return kept


def _ring(ask: Ask) -> KeyRing:
    ring = ask.runtime.keys
    if ring is None:
        raise Rejected(Failure(FailureKind.STORE_UNAVAILABLE, "This process keeps no virtual keys."))
    return ring


def _by(ask: Ask) -> str:
    return "admin key" if ask.key is None else ask.key.id


def _refuse_meaningless(record: KeyRecord, said: Collection[str], budgets: BudgetTable, now: int) -> None:
    """``said``: the fields that were asked for; what the others meanwhile mean is not held against who asks."""
    problem = key_record.problem_of(record)
    if problem is not None:
        raise bad(problem[1], problem[0])
    if "passthrough" in said and record.passthrough and record.account in budgets.accounts:
        raise bad("The account is under a budget of its own, and its keys cannot pass through.", "passthrough")
    if "expires_at" in said and record.is_over(now):
        raise bad("'expires_at' has passed already.", "expires_at")


def _refuse_revoked(record: KeyRecord) -> None:
    if record.revoked_at is not None:
        raise bad("The key has been revoked, for ever. Make a new one.")


def _refuse_excess(name: str | None) -> None:
    if name is not None:
        message = f"The key that asks may not give this, or touch a key that has it: '{name}' goes beyond its own."
        raise Rejected(Failure(FailureKind.ROLE_TOO_LOW, message, param=name))


def _cursor(given: str | None) -> KeyCursor | None:
    if given is None:
        return None
    match = _CURSOR.fullmatch(given)
    if match is None:
        raise bad("'after' must be what the page before told as 'next'.", "after")
    return KeyCursor(int(match.group(1)), match.group(2))


async def _answered(asking: Awaitable[_Result]) -> _Result:
    try:
        return await asking
    except (StoreAway, StoreUnusable) as away:
        message = f"The keys' store cannot be reached: {str(away).rstrip('.')}. Nothing was changed as far as is known."
        raise Rejected(Failure(FailureKind.STORE_UNAVAILABLE, message, retry_after_s=AGAIN_S)) from None


def _told(kept: KeptKey, now: float) -> dict[str, Any]:
    if kept.record is None:
        return {"id": kept.id, "state": "unreadable"}
    return _document(kept.record, now)


def _document(record: KeyRecord, now: float) -> dict[str, Any]:
    """A key as it is told: no secret and no hash."""
    limits, budgets = record.limits, record.budgets
    state = "revoked" if record.revoked_at is not None else "expired" if record.is_over(now) else "active"
    return {
        "id": record.id,
        "prefix": f"{virtual_key.PREFIX}{record.id}",
        "last4": record.last,
        "name": record.name,
        "state": state,
        "account": record.account,
        "role": record.role.name.lower(),
        "routes": None if record.routes is None else list(record.routes),
        "limits": None
        if limits is None
        else {"rps": limits.rps, "burst": limits.burst, "tpm": limits.tpm, "concurrency": limits.concurrency},
        "budgets": None
        if not budgets.is_set
        else {
            "daily": _usd(budgets.daily_nanousd),
            "monthly": _usd(budgets.monthly_nanousd),
            "alert_at": budgets.alert_at,
            "timezone": budgets.timezone,
            "when_away": {None: None, True: "closed", False: "slice"}[budgets.closed_when_away],
        },
        "expires_at": _moment(record.expires_at),
        "tags": dict(record.tags),
        "cache": record.cache.value,
        "passthrough": record.passthrough,
        "created_at": _moment(record.created_at),
        "created_by": record.created_by,
        "revoked_at": _moment(record.revoked_at),
        "old_secret_until": _moment(record.old_until),
        "pepper": record.hash.kid,
    }


def _usd(amount: NanoUsd | None) -> float | None:
    return None if amount is None else float(Decimal(amount).scaleb(-9))


def _moment(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
