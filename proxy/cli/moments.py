"""Times as stores have them, in Unix microseconds, and as people write and read them, in UTC."""

from datetime import UTC, datetime
from typing import Any, Final

US_PER_S: Final = 1_000_000


def span(filters: dict[str, Any]) -> dict[str, Any]:
    """What options say, with ``since`` and ``until`` as a store's filter has them."""
    said = {name: value for name, value in filters.items() if name not in ("since", "until")}
    return said | {f"{name}_us": _micros(filters[name]) for name in ("since", "until")}


def shown(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / US_PER_S, UTC).isoformat(" ", "seconds").removesuffix("+00:00")


def _micros(at: datetime | None) -> int | None:
    return None if at is None else int(at.replace(tzinfo=UTC).timestamp() * US_PER_S)
