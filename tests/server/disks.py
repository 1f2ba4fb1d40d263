"""Disks that fill up, behind the journal's port."""

import errno
import os
from pathlib import Path

from proxy.server.journal import RealDisk


class FullDisk(RealDisk):
    """A real one with `room` bytes left: a write takes what fits, then ENOSPC. None: enough of it."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.truncates = True
        self.opens = True

    def open(self, path: Path) -> int:
        if not self.opens:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().open(path)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room is None:
            return super().write(descriptor, data)
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(descriptor, data[: self.room])
        self.room -= written
        return written

    def truncate(self, descriptor: int, size: int) -> None:
        if not self.truncates:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.room is not None:
            self.room += os.fstat(descriptor).st_size - size
        super().truncate(descriptor, size)
