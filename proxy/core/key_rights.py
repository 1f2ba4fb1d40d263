"""Who may do what to a virtual key: nobody makes one that is stronger than themselves, or lays hands on a stronger one.

The *operator* holds the admin key and is bound by nothing. A virtual key is bound to its account, and what it makes or
changes has at most its own role, routes, limits, budgets, expiry, passthrough right and view of the cache. Before a change
both are compared, the key as it is and as it would be: whoever could rotate a stronger key would hold it.

Deliberately not handled: the sum of what many keys may spend together, which is what the account's budget is for. Held by
`tests/core/test_key_rights.py`.
"""

import math
from collections.abc import Sequence
from typing import Final

from proxy.core.key_record import CacheScope, KeyRecord
from proxy.core.limits import Limits
from proxy.terms import AccountId, Role

Actor = KeyRecord | None  # None: the operator
OPERATOR: Final[Actor] = None


def account_seen(actor: Actor) -> AccountId | None:
    """Whose keys an actor sees at all; None: everybody's. Whatever is asked of a store is asked with it."""
    return None if actor is None else actor.account


def excess(actor: Actor, record: KeyRecord, configured: Limits | None = None) -> str | None:
    """In what a key is stronger than who acts on it: the field's name; None: in nothing.

    ``configured``: the limits that hold for a key that has none of its own; None: not known, and then taken for lower than
    any. Shapes: the name is a member of what the admin API takes, or `role` where the actor may do nothing at all.
    """
    if actor is None:
        return None
    checks = (
        ("role", actor.role is Role.ADMIN and record.role <= actor.role),
        ("account", record.account == actor.account),
        ("routes", _routes_within(record.routes, actor.routes)),
        ("limits", _limits_within(record.limits, actor.limits, configured)),
        ("budgets", _budgets_within(record, actor)),
        ("expires_at", _at_most(record.expires_at, actor.expires_at)),
        ("passthrough", actor.passthrough or not record.passthrough),
        ("cache", actor.cache is CacheScope.ACCOUNT or record.cache is CacheScope.KEY),
    )
    return next((name for name, within in checks if not within), None)


def excess_of_change(actor: Actor, before: KeyRecord, after: KeyRecord, configured: Limits | None = None) -> str | None:
    """In what a key is stronger than who changes it, as it was or as it would be. Errors: as `excess`."""
    found = excess(actor, before, configured)
    return found if found is not None else excess(actor, after, configured)


def _routes_within(routes: Sequence[str] | None, bound: Sequence[str] | None) -> bool:
    if bound is None:
        return True
    return routes is not None and all(any(covers(wide, one) for wide in bound) for one in routes)


def covers(wide: str, narrow: str) -> bool:
    """Whether all that `narrow` matches, `wide` matches. Each a name, or a pattern with one ``*``."""
    if "*" not in wide:
        return wide == narrow
    head, _, tail = wide.partition("*")
    if "*" not in narrow:
        return len(narrow) >= len(head) + len(tail) and narrow.startswith(head) and narrow.endswith(tail)
    inner_head, _, inner_tail = narrow.partition("*")
    return inner_head.startswith(head) and inner_tail.endswith(tail)


def _limits_within(limits: Limits | None, bound: Limits | None, configured: Limits | None) -> bool:
    if bound is None and limits is None:
        return True
    most, asked = bound or configured, limits or configured
    if most is None or asked is None:  # one of them is as configured, and nobody says how that is
        return bound is not None and _is_unlimited(bound)
    return all(
        _at_most(one, other)
        for one, other in (
            (asked.rps, most.rps),
            (_burst(asked), _burst(most)),
            (asked.tpm, most.tpm),
            (asked.concurrency, most.concurrency),
        )
    )


def _is_unlimited(limits: Limits) -> bool:
    return limits.rps is None and limits.tpm is None and limits.concurrency is None


def _burst(limits: Limits) -> int | None:
    if limits.rps is None:
        return None
    return limits.burst if limits.burst is not None else math.ceil(limits.rps)


def _budgets_within(record: KeyRecord, actor: KeyRecord) -> bool:
    own, bound = record.budgets, actor.budgets
    return _at_most(own.daily_nanousd, bound.daily_nanousd) and _at_most(own.monthly_nanousd, bound.monthly_nanousd)


def _at_most(value: float | None, bound: float | None) -> bool:
    """None is without an end, in both."""
    return bound is None or (value is not None and value <= bound)
