"""A connection that is made when it is first needed, and the file behind it.

SQLite goes on with a file that was moved away, where nobody finds what it writes. So before each use the file at the path
must be the one that was opened. One that is gone is not made anew while the process runs: nobody would miss it then.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from proxy.ports import StoreAway
from proxy.stores.sqlite.connection import mapped

_GONE: Final = (
    "{} is gone: it was moved away or removed while it was in use. Put it back, with its -wal file if there is one, and all "
    "goes on. A restart without it begins with an empty one."
)
_REPLACED: Final = "{} was replaced while it was in use. It is opened anew."

_Result = TypeVar("_Result")


class Opened:
    """``make`` opens the connection; it may raise what SQLite raises, `OSError` and `StoreUnusable`.

    Concurrency: used by one thread at a time, whichever.
    """

    def __init__(self, path: Path, make: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._make = make
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # its device and number, once it was opened

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Raises `StoreAway` and `StoreUnusable`; whatever was half done is gone then, and the next call opens it anew."""
        with mapped(self._path):
            try:
                self._refuse_moved()
                if self._connection is None:
                    self._connection = self._make()
                    self._file = self._seen()
                return work(self._connection)
            except (sqlite3.Error, StoreAway):
                self.close()
                raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _refuse_moved(self) -> None:
        """Another file in its place is told once: what is known of the old one must be asked for anew."""
        if self._file is None:
            return
        seen = self._seen()
        if seen is None:
            raise StoreAway(_GONE.format(self._path))
        if seen != self._file:
            self._file = seen
            raise StoreAway(_REPLACED.format(self._path))

    def _seen(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino
