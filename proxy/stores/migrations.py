"""Numbered migrations: the SQL files of a folder, `0001_rows.sql` first, each applied once, in order, in one transaction.

A store keeps the number of the last one applied. One that has more than this version knows was written by a newer
Penstock, which may mean other things by the same names: it is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.ports import StoreUnusable

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str


def load(folder: Path) -> tuple[Migration, ...]:
    """The migrations of a folder, in order. They are numbered from 1, without gaps."""
    found = [
        Migration(int(match.group(1)), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted(folder.iterdir())
        if (match := _NAME.fullmatch(path.name))
    ]
    assert [one.version for one in found] == list(range(1, len(found) + 1)), folder  # noqa: S101 - ours
    return tuple(found)


def pending(known: Sequence[Migration], applied: int, store: str) -> Sequence[Migration]:
    """Those still to be applied. Raises `StoreUnusable` for a store that is newer than this version."""
    if applied > len(known):
        raise StoreUnusable(
            f"{store} has schema version {applied}, and this Penstock knows {len(known)}: a newer Penstock wrote it. "
            "Run that version, or restore a backup from before the upgrade."
        )
    return known[applied:]


def refuse_old(known: Sequence[Migration], applied: int, store: str) -> None:
    """For those who only read. Raises `StoreUnusable` for a store that is older or newer than this version."""
    if pending(known, applied, store):
        raise StoreUnusable(
            f"{store} has schema version {applied}, and this Penstock reads {len(known)}. "
            "Start `penstock serve` of this version once: it brings the schema up to date."
        )
