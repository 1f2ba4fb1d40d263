"""What a dead process left: its journal, to be delivered by whoever takes its lock first, and by nobody else.

Its settlements are rows as they stand. An intent without a settlement is an exchange that the process died in: it becomes
a row `interrupted`. Delivery may be repeated (the ledger takes a row once), so an heir that dies in the middle leaves the
rest to the next. Nothing is removed before everything is delivered: what a settlement says of an intent must not be lost
before the intent is.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.core import journal_record
from proxy.core.journal_record import Damaged
from proxy.core.ledger import Intent, LedgerRow, interrupted
from proxy.ports import ExchangeLog
from proxy.server.journal import UNFINISHED, lock_of, remove_folder, segments_of

UNFINISHED_S: Final = 60.0  # older than this, a folder that was never named is nobody's


class Foreign(Exception):  # noqa: N818 - it says what the journal is
    """A journal that a newer version wrote: to be left for it."""


class Estate:
    """A dead process's journal, its lock held. Used in one thread at a time. Errors: reading raises `OSError`, `Foreign`."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock
        self.damaged: list[Damaged] = []
        self.interrupted = 0

    def rows(self) -> Iterator[tuple[LedgerRow, ...]]:
        """The settlements, a segment at a time, then the rows of what was interrupted."""
        begun: dict[str, Intent] = {}
        self.damaged = []
        for path in segments_of(self.folder):
            data = path.read_bytes()
            if journal_record.foreign(data[: data.find(b"\n") + 1]):
                raise Foreign(f"{path}: a newer Penstock wrote it, and must deliver it")
            settled: list[LedgerRow] = []
            for entry in journal_record.records(data):
                match entry:
                    case Intent():
                        begun[entry.id] = entry
                    case LedgerRow():
                        begun.pop(entry.id, None)
                        settled.append(entry)
                    case Damaged():
                        self.damaged.append(entry)
            yield tuple(settled)
        self.interrupted = len(begun)
        yield tuple(interrupted(intent) for intent in begun.values())

    def remove(self, log: ExchangeLog) -> None:
        """Everything is delivered."""
        remove_folder(self.folder, log)
        os.close(self._lock)

    def release(self) -> None:
        """Leave it to the next."""
        os.close(self._lock)


def claim(root: Path, own: Path) -> Iterator[Estate]:
    """Every journal below the root whose process is dead, its lock taken. Raises `OSError` where the root cannot be read."""
    for folder in sorted(root.iterdir()):
        if folder == own or not folder.is_dir():
            continue
        lock = _lock(folder)
        if lock is not None:
            yield Estate(folder, lock)


def _lock(folder: Path) -> int | None:
    """The lock of a dead process's journal. Heirs race, so a folder may go while it is looked at."""
    try:
        if folder.name.startswith(UNFINISHED) and time.time() - folder.stat().st_mtime < UNFINISHED_S:
            return None  # its process is about to take the lock
        return lock_of(folder)
    except FileNotFoundError:
        _remove_shell(folder)
        return None


def _remove_shell(folder: Path) -> None:
    """A folder without a lock: an heir died between removing the lock and the folder, or another is doing so now."""
    try:
        folder.rmdir()
    except OSError:
        return  # gone already; or not a journal's, and then it is not ours to empty
