"""A log file that is rotated by size, and gone after where somebody else rotates it.

Only the log's writer thread writes. Several processes may share a file: lines are appended whole, and who rotates holds a
lock on the file that is rotated, so that it is rotated once. A file that was renamed or removed (logrotate) is noticed
within `LOOK_S`, and a new one is opened in its place: no signal is needed.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LOOK_S: Final = 1.0
MODE: Final = 0o640  # names of accounts and routes are in it, and a collector of logs is often of the group


class LogFile:
    """Errors: `OSError` from making it and from `write`; the next `write` tries anew."""

    def __init__(self, path: Path, *, bytes_max: int, files: int, now: Callable[[], float] = time.monotonic) -> None:
        """``files``: how many old ones are kept, as `<path>.1` (the newest) ...; 0: none. ``bytes_max`` 0: never rotated."""
        self._path = path
        self._bytes_max = bytes_max
        self._files = files
        self._now = now
        self._looked_at = now()
        self._descriptor: int | None = self._opened()

    def write(self, data: bytes) -> None:
        if self._now() - self._looked_at >= LOOK_S or self._descriptor is None:
            self._follow()
        assert self._descriptor is not None  # noqa: S101 - followed
        if self._bytes_max and self._size() + len(data) > self._bytes_max and self._size():
            self._rotate()
        left = data
        while left:
            left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)

    def _size(self) -> int:
        assert self._descriptor is not None  # noqa: S101 - open
        return os.fstat(self._descriptor).st_size

    def _follow(self) -> None:
        """Write to what has the name now."""
        self._looked_at = self._now()
        if not self._is_named():
            self.close()
            self._descriptor = self._opened()

    def _is_named(self) -> bool:
        if self._descriptor is None:
            return False
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(self._descriptor))

    def _rotate(self) -> None:
        assert self._descriptor is not None  # noqa: S101 - open
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)  # given back when it is closed
        if self._is_named():  # else another process was quicker
            for number in range(self._files, 0, -1):
                older = self._numbered(number)
                newer = self._path if number == 1 else self._numbered(number - 1)
                if newer.exists():
                    newer.replace(older)
            if not self._files:
                self._path.unlink()
        self.close()
        self._descriptor = self._opened()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
