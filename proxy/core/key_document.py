"""A virtual key's record as stores keep it: a few columns to find it by, and one JSON text for the rest.

A text that this version cannot read makes no record: a key that may mean less than it seems to is not let in at all.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from proxy.core.key_record import CacheScope, KeyBudgets, KeyRecord
from proxy.core.limits import Limits
from proxy.core.tags import tags_from
from proxy.core.virtual_key import SecretHash
from proxy.terms import AccountId, NanoUsd, Role, VirtualKeyId

COLUMNS: Final = (
    "id",
    "account",
    "kid",
    "digest",
    "old_kid",
    "old_digest",
    "old_until",
    "last",
    "created_at",
    "revoked_at",
    "settings",
)
_VERSION: Final = 1


def columns_of(record: KeyRecord) -> dict[str, Any]:
    old = record.old
    return {
        "id": record.id,
        "account": record.account,
        "kid": record.hash.kid,
        "digest": record.hash.digest,
        "old_kid": None if old is None else old.kid,
        "old_digest": None if old is None else old.digest,
        "old_until": record.old_until,
        "last": record.last,
        "created_at": record.created_at,
        "revoked_at": record.revoked_at,
        "settings": orjson.dumps(_settings(record)).decode(),
    }


def record_from(columns: Mapping[str, Any]) -> KeyRecord | None:
    """The record of a row; None where this version cannot read it."""
    try:
        settings = orjson.loads(columns["settings"])
        if settings["version"] != _VERSION:
            return None
        return _record(columns, settings)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _record(columns: Mapping[str, Any], settings: Mapping[str, Any]) -> KeyRecord:
    old_kid, limits, budgets = columns["old_kid"], settings["limits"], settings["budgets"]
    return KeyRecord(
        id=VirtualKeyId(columns["id"]),
        hash=SecretHash(columns["kid"], bytes(columns["digest"])),
        last=columns["last"],
        name=settings["name"],
        created_at=columns["created_at"],
        created_by=settings["created_by"],
        account=AccountId(columns["account"]),
        role=Role[settings["role"].upper()],
        routes=None if settings["routes"] is None else tuple(settings["routes"]),
        limits=None if limits is None else Limits(**limits),
        budgets=KeyBudgets(**{**budgets, **{name: _money(budgets[name]) for name in _MONEY}}),
        expires_at=settings["expires_at"],
        tags=tags_from(settings["tags"]),
        cache=CacheScope(settings["cache"]),
        passthrough=settings["passthrough"],
        revoked_at=columns["revoked_at"],
        old=None if old_kid is None else SecretHash(old_kid, bytes(columns["old_digest"])),
        old_until=columns["old_until"],
    )


_MONEY: Final = ("daily_nanousd", "monthly_nanousd")


def _money(value: int | None) -> NanoUsd | None:
    return None if value is None else NanoUsd(value)


def _settings(record: KeyRecord) -> dict[str, Any]:
    limits, budgets = record.limits, record.budgets
    return {
        "version": _VERSION,
        "name": record.name,
        "created_by": record.created_by,
        "role": record.role.name.lower(),
        "routes": record.routes,
        "limits": None
        if limits is None
        else {"rps": limits.rps, "burst": limits.burst, "tpm": limits.tpm, "concurrency": limits.concurrency},
        "budgets": {
            "daily_nanousd": budgets.daily_nanousd,
            "monthly_nanousd": budgets.monthly_nanousd,
            "alert_at": budgets.alert_at,
            "timezone": budgets.timezone,
            "closed_when_away": budgets.closed_when_away,
        },
        "expires_at": record.expires_at,
        "tags": record.tags,
        "cache": record.cache.value,
        "passthrough": record.passthrough,
    }
