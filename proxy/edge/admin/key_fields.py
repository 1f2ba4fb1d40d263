"""What a body says of a virtual key: each member as a value of its record, or refused by its name.

null, and no member at all when a key is made, mean that there is none: all routes, no limits of its own, no expiry.
"""

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from proxy.core.key_record import CacheScope, KeyBudgets
from proxy.core.limits import BURST_MAX, CONCURRENCY_MAX, FILL_S_MAX, RPS, TPM_MAX, Limits
from proxy.core.nearest import did_you_mean
from proxy.core.principal import account_of
from proxy.core.tags import NAME_CHARS_MAX as TAG_NAME_CHARS_MAX
from proxy.core.tags import TAGS_MAX, Tags, tags_from
from proxy.core.tags import VALUE_CHARS_MAX as TAG_VALUE_CHARS_MAX
from proxy.core.text import storable
from proxy.core.window import zone
from proxy.edge.admin.entry import bad, refuse_unknown
from proxy.edge.admin.values import moment_us
from proxy.terms import AccountId, NanoUsd, Role

NAME_CHARS_MAX: Final = 100
ROUTES_MAX: Final = 100
ROUTE_CHARS_MAX: Final = 512
BUDGET_USD_MAX: Final = 9_000_000  # as the routes file's
_NANO: Final = 10**9
_LIMIT_MOST: Final = {"rps": RPS[1], "burst": BURST_MAX, "tpm": TPM_MAX, "concurrency": CONCURRENCY_MAX}
_BUDGETS: Final = frozenset({"daily", "monthly", "alert_at", "timezone", "when_away"})
_AMOUNT: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?", re.ASCII)


def fields_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The members that stand in a body, as fields of a record. Raises `Rejected`."""
    return {name: _READ[name](body[name]) for name in body if name in _READ}


def _name(given: Any) -> str:
    if not isinstance(given, str) or not given.strip() or len(given) > NAME_CHARS_MAX or not given.isprintable():
        raise bad(f"'name' must be a text of 1 to {NAME_CHARS_MAX} printable characters.", "name")
    return storable(given.strip())


def _account(given: Any) -> AccountId:
    account = account_of(given) if isinstance(given, str) else None
    if account is None:
        raise bad("'account' must be an account's id: 1 to 64 letters, digits, dots, dashes, underscores.", "account")
    return account


def _role(given: Any) -> Role:
    known = {role.name.lower(): role for role in Role}
    if not isinstance(given, str) or given not in known:
        hint = did_you_mean(given, known) if isinstance(given, str) else ""
        raise bad(f"'role' must be one of {', '.join(known)}.{hint}", "role")
    return known[given]


def _routes(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not 0 < len(given) <= ROUTES_MAX or not all(map(_is_route, given)):
        raise bad(
            f"'routes' must be null for all, or 1 to {ROUTES_MAX} names of routes or <provider>/<model>, each with at most "
            "one *.",
            "routes",
        )
    return tuple(dict.fromkeys(given))


def _is_route(one: Any) -> bool:
    return isinstance(one, str) and 0 < len(one) <= ROUTE_CHARS_MAX and one.count("*") <= 1 and _is_plain(one)


def _is_plain(text: str) -> bool:
    return text.isprintable() and storable(text) == text


def _limits(given: Any) -> Limits | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise bad('\'limits\' must be null or an object such as {"rps": 10, "tpm": 200000}.', "limits")
    refuse_unknown("member of limits", given, _LIMIT_MOST)
    rps = given.get("rps")
    if rps is not None and not (_is_number(rps) and RPS[0] <= rps <= RPS[1] and round(rps, 3) == rps):
        raise bad(f"'limits.rps' must be a number from {RPS[0]} to {RPS[1]}, with at most 3 decimals.", "limits.rps")
    whole = {name: _whole(given.get(name), name) for name in ("burst", "tpm", "concurrency")}
    limits = Limits(rps=rps, **whole)
    if limits.burst is not None and (limits.rps is None or limits.burst > limits.rps * FILL_S_MAX):
        raise bad("'limits.burst' needs 'rps' beside it, at which it comes back within a day.", "limits.burst")
    return None if limits == Limits() else limits


def _whole(given: Any, name: str) -> int | None:
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= _LIMIT_MOST[name]:
        raise bad(f"'limits.{name}' must be a whole number from 1 to {_LIMIT_MOST[name]}.", f"limits.{name}")
    return given


def _budgets(given: Any) -> KeyBudgets:
    if given is None:
        return KeyBudgets()
    if not isinstance(given, dict):
        raise bad('\'budgets\' must be null or an object such as {"daily": 5, "monthly": 100}, in USD.', "budgets")
    refuse_unknown("member of budgets", given, _BUDGETS)
    alert_at, timezone, when_away = (given.get(name) for name in ("alert_at", "timezone", "when_away"))
    if alert_at is not None and not (_is_number(alert_at) and 0 < alert_at <= 1):
        raise bad("'budgets.alert_at' must be a number above 0, at most 1.", "budgets.alert_at")
    if timezone is not None and not (isinstance(timezone, str) and len(timezone) <= 64 and zone(timezone)):
        raise bad("'budgets.timezone' must be a time zone such as Europe/Paris.", "budgets.timezone")
    if when_away not in (None, "slice", "closed"):
        raise bad("'budgets.when_away' must be slice or closed.", "budgets.when_away")
    return KeyBudgets(
        daily_nanousd=_usd(given.get("daily"), "daily"),
        monthly_nanousd=_usd(given.get("monthly"), "monthly"),
        alert_at=None if alert_at is None else float(alert_at),
        timezone=timezone,
        closed_when_away=None if when_away is None else when_away == "closed",
    )


def _usd(given: Any, name: str) -> NanoUsd | None:
    """Exactly: a number as the decimal that it is written as, never as the binary fraction next to it."""
    if given is None:
        return None
    text = _written(given).removesuffix(".0")
    if not _AMOUNT.fullmatch(text) or Decimal(text) > BUDGET_USD_MAX:
        most = f"an amount in USD such as 5 or 0.25, at most {BUDGET_USD_MAX} and with at most nine decimals"
        raise bad(f"'budgets.{name}' must be {most}.", f"budgets.{name}")
    return NanoUsd(int(Decimal(text) * _NANO))


def _expires_at(given: Any) -> int | None:
    if given is None:
        return None
    us = moment_us({"expires_at": _written(given)}, "expires_at")
    assert us is not None  # noqa: S101 - it was given
    return us // 1_000_000


def _tags(given: Any) -> Tags:
    if given is None:
        return ()
    pairs = list(given.items()) if isinstance(given, dict) else None
    found = () if pairs is None or not all(isinstance(value, str) for _, value in pairs) else tags_from(pairs)
    if pairs is None or found != tuple(pairs):
        raise bad(
            f'\'tags\' must be null or an object of at most {TAGS_MAX} texts, such as {{"team": "search"}}: names of up to '
            f"{TAG_NAME_CHARS_MAX} characters, values of up to {TAG_VALUE_CHARS_MAX}, without control characters.",
            "tags",
        )
    return found


def _cache(given: Any) -> CacheScope:
    known = [scope.value for scope in CacheScope]
    if given not in known:
        raise bad("'cache' must be account (answers are shared in the account) or key (with nobody).", "cache")
    return CacheScope(given)


def _passthrough(given: Any) -> bool:
    if not isinstance(given, bool):
        raise bad("'passthrough' must be true or false.", "passthrough")
    return given


def _written(given: Any) -> str:
    """A text as it is, a number in digits; empty where it is neither."""
    return given if isinstance(given, str) else format(Decimal(str(given)), "f") if _is_number(given) else ""


def _is_number(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "name": _name,
    "account": _account,
    "role": _role,
    "routes": _routes,
    "limits": _limits,
    "budgets": _budgets,
    "expires_at": _expires_at,
    "tags": _tags,
    "cache": _cache,
    "passthrough": _passthrough,
}
CREATED_WITH: Final = frozenset(_READ)
CHANGED_WITH: Final = CREATED_WITH - {"account"}  # what a key has spent stays with its account, and so does the key
