"""What a query's values mean. Each is None, or its default, where it was left out; what is no such value is refused.

Texts come out as the stores keep them, so that what no row can hold is looked for in vain and breaks nothing.
"""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from proxy.core.ledger import MODEL_CHARS_MAX, NAME_CHARS_MAX, US_PER_S, Cursor, cursor_from
from proxy.core.nearest import did_you_mean
from proxy.core.text import storable
from proxy.edge.admin.entry import bad

Query = Mapping[str, str]

_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)
_SECONDS_MAX: Final = 253_402_300_800  # the year 10000: beyond it somebody sent milliseconds
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TOLD_CHARS_MAX: Final = 64
_MOMENT: Final = "a time such as 2026-11-21, 2026-11-21T09:30:00Z (a + in a URL is written %2B) or Unix seconds"


def number(query: Query, name: str, low: int, high: int) -> int | None:
    given = query.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= len(str(high)) and low <= int(given) <= high):
        raise _unexpected(name, f"a whole number from {low} to {high}", given)
    return int(given)


def text(query: Query, name: str) -> str | None:
    """A name as rows have it. An empty one is refused: it would be everybody's."""
    given = query.get(name)
    if given is None:
        return None
    chars_max = MODEL_CHARS_MAX if name == "model" else NAME_CHARS_MAX
    if not given or len(given) > chars_max:
        raise _unexpected(name, f"1 to {chars_max} characters", given)
    return storable(given)


def one_of(query: Query, name: str, known: Collection[str]) -> str | None:
    given = query.get(name)
    if given is not None and given not in known:
        raise _unexpected(name, f"one of {', '.join(known)}", given, did_you_mean(given, known))
    return given


def tag(query: Query, name: str) -> tuple[str, str] | None:
    """``team=search``; the value may be empty and may hold ``=``."""
    given = query.get(name)
    if given is None:
        return None
    tag_name, equals, value = given.partition("=")
    if not equals or not tag_name.strip():
        raise _unexpected(name, "name=value", given)
    return tag_name, value


def moment_us(query: Query, name: str) -> int | None:
    """Unix microseconds of a day, a time (UTC where it names no zone) or Unix seconds."""
    given = query.get(name)
    if given is None:
        return None
    if _SECONDS.fullmatch(given):
        if (seconds := Decimal(given)) >= _SECONDS_MAX:
            raise _unexpected(name, _MOMENT, given)
        return int(seconds * US_PER_S)
    try:
        at = datetime.fromisoformat(given)
        since_epoch = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        raise _unexpected(name, _MOMENT, given) from None
    return max(0, since_epoch // timedelta(microseconds=1))


def cursor(query: Query, name: str) -> Cursor | None:
    given = query.get(name)
    found = None if given is None else cursor_from(given)
    if given is not None and found is None:
        raise _unexpected(name, f"what the page before told as '{name}'", given)
    return found


def _unexpected(name: str, expected: str, given: str, hint: str = "") -> Exception:
    more = "..." if len(given) > _TOLD_CHARS_MAX else ""
    return bad(f"'{name}' must be {expected}; got {given[:_TOLD_CHARS_MAX]!r}{more}.{hint}", name)
