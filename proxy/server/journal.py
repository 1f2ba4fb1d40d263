"""The journal: what this process has begun and settled, on disk before anybody is told, so that `kill -9` loses nothing.

An append-only file in segments. Every entry is one `write(2)` to a descriptor opened with O_APPEND, and nothing is synced:
it survives the process, at any moment, not the machine. (The page cache belongs to the kernel. A sync would cost each
answer a disk's turn; who cannot lose the last second to a power cut needs a machine that does not lose power.)

One folder a process, `<root>/<pid>-<random>/`, held by a lock on its file `lock` for as long as the process lives. The
kernel lets go of the lock when the process ends, however it ends; who then gets it is the heir (`estate`). A process that
forks after it has opened its journal passes the lock on: workers open theirs after the fork.

States of a settlement: written (in a segment) or, where the disk refused it, in memory; then confirmed, when the ledger
has it. A segment is removed when all that it holds is confirmed and no exchange that it announces is still open. While
the disk refuses, or more is spooled than allowed, `trouble` says so: the process must take no new requests then, so that
what memory must hold is bounded by the exchanges that are running. Held by `tests/server/test_journal.py`.
"""

import errno
import fcntl
import os
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from proxy.core import journal_record
from proxy.core.journal_record import HEAD, Damaged
from proxy.core.ledger import Intent, LedgerRow
from proxy.ports import ExchangeLog
from proxy.terms import ExchangeId

SEGMENT_BYTES: Final = 1024 * 1024
SPOOL_BYTES_MAX: Final = 256 * 1024 * 1024  # some 400,000 rows
RECENT_ROWS_MAX: Final = 1_000  # written and not yet delivered, kept at hand
MEMORY_ROWS_MAX: Final = 20_000  # more than there are exchanges in flight
PROBE_BYTES: Final = 16 * 1024
LOCK: Final = "lock"
UNFINISHED: Final = ".new-"  # prefix of a folder that is not yet locked
SUFFIX: Final = ".journal"


class Disk(Protocol):
    """What the journal does to files. A port, so that tests can fill the disk. Raises `OSError`."""

    def open(self, path: Path) -> int: ...

    def write(self, descriptor: int, data: bytes) -> int: ...

    def truncate(self, descriptor: int, size: int) -> None: ...

    def close(self, descriptor: int) -> None: ...


class RealDisk:
    def open(self, path: Path) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)


@dataclass(slots=True)
class _Segment:
    """``size``: of whole entries. ``open``: exchanges that it announces and that are not settled."""

    path: Path
    size: int = 0
    open: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Settlements to deliver. ``end``: how far the journal is read with them, None where they come from memory."""

    rows: tuple[LedgerRow, ...]
    damaged: tuple[Damaged, ...]
    end: tuple[int, int] | None


class Journal:
    """This process's own. Concurrency: the loop's thread alone, but for `read`, which may run in another."""

    def __init__(
        self,
        root: Path,
        log: ExchangeLog,
        *,
        disk: Disk | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        spool_bytes_max: int = SPOOL_BYTES_MAX,
    ) -> None:
        """Makes and locks the folder. Raises `OSError`: a process without a journal must not serve."""
        self._log = log
        self._disk: Disk = disk or RealDisk()
        self._segment_bytes = segment_bytes
        self._spool_bytes_max = spool_bytes_max
        self.folder, self._lock = _folder(root)
        self._segments: dict[int, _Segment] = {}
        self._number = 0  # of the segment that is written to
        self._named = 0  # the last number that a segment was named by; one that could not be begun leaves a gap
        self._roll_at = segment_bytes
        self._descriptor = -1
        self._intents: dict[ExchangeId, list[int]] = {}  # the segments that announce each open exchange
        self._position = (1, 0)  # everything before it is confirmed: segment, offset
        self._memory: deque[LedgerRow] = deque()
        self._recent: deque[tuple[int, int, LedgerRow]] = deque(
            maxlen=RECENT_ROWS_MAX
        )  # where each ends: segment, offset
        self._refusal: str | None = None
        self._spooled = 0
        self.settled = 0
        self.confirmed = 0
        self.lost = 0
        self._new_segment()

    @property
    def waiting(self) -> int:
        """Settlements that are not confirmed."""
        return self.settled - self.confirmed

    @property
    def spool_bytes(self) -> int:
        return self._spooled

    @property
    def trouble(self) -> str | None:
        """Why no new request may be taken; None where they may."""
        if self._refusal is not None:
            return f"the journal cannot be written: {self._refusal}"
        if self._memory:
            return f"{len(self._memory)} settlements wait in memory, because the journal could not be written"
        if self._spooled > self._spool_bytes_max:
            return (
                f"the journal holds {self._spooled} bytes that the ledger has not taken, over {self._spool_bytes_max}"
            )
        return None

    def intend(self, intent: Intent) -> bool:
        """Write down that an attempt is about to be sent; False: it could not be, so it must not be sent."""
        if not self._append(journal_record.intent_line(intent)):
            return False
        announced = self._intents.setdefault(intent.id, [])
        if self._number not in announced:
            announced.append(self._number)
            self._segments[self._number].open += 1
        self._roll_if_full()
        return True

    def settle(self, row: LedgerRow) -> None:
        """Write down how an exchange ended. Never fails: what the disk refuses is kept in memory and tried again."""
        self.settled += 1
        if self._append(journal_record.settlement_line(row)):
            self._recent.append((self._number, self._segments[self._number].size, row))
        else:
            self._keep_in_memory(row)
        announced = self._intents.pop(row.id, None)
        if announced is not None:
            for number in announced:
                self._segments[number].open -= 1
            if announced[0] != self._number:
                self._remove_done()
        self._roll_if_full()

    def probe(self) -> None:
        """See whether a disk that refused takes something again, and give it what memory holds.

        Not between a `read` and its `confirm`: the batch may have come from memory.
        """
        if self._refusal is None and not self._memory:
            return
        if self._append(b"#" * (PROBE_BYTES - 1) + b"\n"):
            self._take_back(PROBE_BYTES)
        while self._memory and self._append(journal_record.settlement_line(self._memory[0])):
            self._memory.popleft()

    def recent(self, rows_max: int) -> Batch | None:
        """The next settlements, where none of them has to be read back; None where they have to be.

        They have to be from a segment that somebody removed, so that this is noticed.
        """
        if self._memory or not self._recent or len(self._recent) != self.waiting:
            return None
        if self._descriptor < 0 or not os.fstat(self._descriptor).st_nlink:
            return None
        taken = list(islice(self._recent, rows_max))
        number, offset, _ = taken[-1]
        return Batch(tuple(row for _, _, row in taken), (), (number, offset))

    def read(self, bytes_max: int) -> Batch:
        """The next settlements behind what is confirmed: about as many as the bytes hold, and at least one record.

        Asked again without a `confirm`, it gives the same and more. Raises `OSError`.
        """
        if self._memory:
            return Batch(tuple(list(self._memory)[: max(1, bytes_max // 1024)]), (), None)
        number, offset = self._position
        while number < self._number and offset >= self._size(number):
            number, offset = number + 1, 0
        segment = self._segments.get(number)
        if segment is None or offset >= segment.size:
            return Batch((), (), (number, offset))
        data = _whole_lines(segment.path, offset, segment.size, bytes_max)
        found = journal_record.records(data)
        return Batch(
            tuple(one for one in found if isinstance(one, LedgerRow)),
            tuple(one for one in found if isinstance(one, Damaged)),
            (number, offset + len(data)),
        )

    def confirm(self, batch: Batch) -> None:
        """The ledger has a batch: it need not be kept."""
        self.confirmed += len(batch.rows)
        if batch.end is None:
            for _ in batch.rows:
                self._memory.popleft()
            return
        self._position = batch.end
        while self._recent and self._recent[0][:2] <= batch.end:
            self._recent.popleft()
        if batch.end == (self._number, self._size(self._number)):
            self.confirmed = self.settled - len(self._memory)  # a damaged record was counted too, and will never come
        self._remove_done()

    def close(self) -> None:
        """Let go. Where everything is confirmed nothing is left; else the folder stays for the next process."""
        self.probe()
        for row in self._memory:  # neither disk nor ledger took it: the log is the last place left
            self._log.event(
                "journal: a settlement could not be kept", entry=journal_record.settlement_line(row).decode()
            )
        self._close_descriptor()
        if not self.waiting and not self._intents:
            remove_folder(self.folder, self._log)
        os.close(self._lock)

    def _append(self, line: bytes) -> bool:
        """One write of one whole line, or none: a torn line is taken back."""
        try:
            if self._descriptor < 0:
                self._new_segment()
            written = self._disk.write(self._descriptor, line)
        except OSError as error:
            self._refused(error.strerror or str(error))
            return False
        segment = self._segments[self._number]
        segment.size += written
        self._spooled += written
        if written < len(line):
            self._take_back(written)  # what is left of it would spoil the entry that follows
            self._refused("no space left for a whole entry")
            return False
        if self._refusal is not None:
            self._refusal = None
            self._log.event("journal: written again")
        return True

    def _take_back(self, count: int) -> None:
        segment = self._segments[self._number]
        segment.size -= count
        self._spooled -= count
        try:
            self._disk.truncate(self._descriptor, segment.size)
        except OSError as error:
            # What is torn stays at this segment's end, where no reader looks; what follows goes to another.
            self._log.event("journal: a torn entry could not be taken back", error=error.strerror or str(error))
            self._close_descriptor()

    def _refused(self, reason: str) -> None:
        if self._refusal is None:
            self._log.event("journal: cannot be written; new requests are refused", error=reason)
        self._refusal = reason

    def _keep_in_memory(self, row: LedgerRow) -> None:
        if len(self._memory) < MEMORY_ROWS_MAX:
            self._memory.append(row)
            return
        self.lost += 1
        self.settled -= 1
        self._log.event("journal: a settlement is LOST, disk and memory are full", id=row.id, lost=self.lost)

    def _roll_if_full(self) -> None:
        if self._segments[self._number].size < self._roll_at:
            return
        full = self._descriptor
        try:
            self._new_segment()
        except OSError as error:  # no descriptor, no inode: the full one will do a little longer
            self._roll_at += self._segment_bytes // 4
            self._log.event("journal: no new segment", error=error.strerror or str(error))
            return
        if full >= 0:
            self._close(full)
        self._remove_done()

    def _new_segment(self) -> None:
        """Write to a new segment from now on. Raises `OSError`, and then everything is as it was."""
        self._named += 1
        path = self.folder / f"{self._named:08d}{SUFFIX}"
        descriptor = self._disk.open(path)
        try:
            whole = self._disk.write(descriptor, HEAD) == len(HEAD)
        except OSError:
            self._discard(descriptor, path)
            raise
        if not whole:
            self._discard(descriptor, path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._number, self._descriptor = self._named, descriptor
        self._segments[self._number] = _Segment(path, len(HEAD))
        self._spooled += len(HEAD)
        self._roll_at = self._segment_bytes

    def _discard(self, descriptor: int, path: Path) -> None:
        self._close(descriptor)
        self._unlink(path)

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            self._close(self._descriptor)
            self._descriptor = -1

    def _close(self, descriptor: int) -> None:
        try:
            self._disk.close(descriptor)
        except OSError as error:
            self._log.event("journal: a segment could not be closed", error=error.strerror or str(error))

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # who finds it delivers it again, which changes nothing
            self._log.event(
                "journal: a segment could not be removed", path=str(path), error=error.strerror or str(error)
            )

    def _remove_done(self) -> None:
        number, offset = self._position
        read_to = number + 1 if number < self._number and offset >= self._size(number) else number
        done = [one for one, segment in self._segments.items() if one < read_to and not segment.open]
        for one in done:
            segment = self._segments.pop(one)
            self._spooled -= segment.size
            self._unlink(segment.path)

    def _size(self, number: int) -> int:
        segment = self._segments.get(number)
        return 0 if segment is None else segment.size


def segments_of(folder: Path) -> Sequence[Path]:
    """A journal's segments, in order."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)


def lock_of(folder: Path) -> int | None:
    """Take a journal's lock, if nobody holds it and nobody has just removed it. Raises `OSError` where there is none."""
    path = folder / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        os.close(descriptor)
        return None
    os.close(descriptor)
    return None


def remove_folder(folder: Path, log: ExchangeLog) -> None:
    """Remove a journal of which nothing is needed any more. The lock is still held, and is the last to go."""
    try:
        for path in (*segments_of(folder), folder / LOCK):
            path.unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:  # who finds it delivers it again, which changes nothing
        log.event("journal: a folder could not be removed", path=str(folder), error=error.strerror or str(error))


def _folder(root: Path) -> tuple[Path, int]:
    """A folder of our own and its lock, held before anybody can see the folder by its name."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    making = root / f"{UNFINISHED}{name}"
    making.mkdir(mode=0o700)
    lock = os.open(making / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return making.rename(root / name), lock


def _whole_lines(path: Path, start: int, end: int, bytes_max: int) -> bytes:
    """From start, up to the last line's end within the bytes; more than those where one line is longer."""
    with path.open("rb", buffering=0) as segment:
        while True:
            data = os.pread(segment.fileno(), min(bytes_max, end - start), start)
            cut = data.rfind(b"\n") + 1
            if cut or len(data) >= end - start:
                return data[:cut] if cut else data
            bytes_max *= 2
