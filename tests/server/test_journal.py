"""The journal alone: what it keeps, when it lets go, what it does when the disk refuses, and who inherits."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.core.journal_record import HEAD
from proxy.core.ledger import LedgerRow
from proxy.server import journal as journals
from proxy.server.estate import Estate, Foreign, claim
from proxy.server.journal import Journal, segments_of
from proxy.terms import ExchangeId
from tests.gateway import RecordingLog
from tests.rows import row
from tests.server.crash import WORST_CASE, intent
from tests.server.disks import FullDisk

READ = 64 * 1024
Make = Callable[..., Journal]


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


@pytest.fixture
def make(tmp_path: Path, log: RecordingLog) -> Iterator[Make]:
    made: list[Journal] = []

    def new(**options: Any) -> Journal:
        made.append(Journal(tmp_path, log, **options))
        return made[-1]

    yield new
    for one in made:
        for descriptor in (one._descriptor, one._lock):
            try:
                os.close(descriptor)
            except OSError:
                continue  # the test has closed it


def die(journal: Journal) -> None:
    """What the kernel does for a process that is killed."""
    os.close(journal._descriptor)
    os.close(journal._lock)


def healthy(journal: Journal) -> bool:
    return journal.trouble is None


def deliver(journal: Journal) -> list[LedgerRow]:
    """Everything that waits, read and confirmed."""
    rows: list[LedgerRow] = []
    while journal.waiting:
        batch = journal.read(READ)
        rows += batch.rows
        journal.confirm(batch)
    return rows


def test_what_is_settled_is_read_in_order_and_then_gone(make: Make, tmp_path: Path) -> None:
    journal = make(segment_bytes=4096)
    rows = [row(number) for number in range(100)]
    for one in rows:
        assert journal.intend(intent(one.id))
        journal.settle(one)
    assert len(segments_of(journal.folder)) > 10
    assert journal.spool_bytes == sum(path.stat().st_size for path in segments_of(journal.folder))
    assert deliver(journal) == rows
    assert (journal.waiting, len(segments_of(journal.folder))) == (0, 1)
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_confirmed_is_read_again(make: Make) -> None:
    journal = make()
    journal.settle(row(1))
    assert journal.read(READ).rows == (row(1),)
    journal.settle(row(2))
    assert journal.read(READ).rows == (row(1), row(2))
    assert journal.waiting == 2


def test_a_batch_is_about_as_many_bytes_as_asked_for_and_never_nothing(make: Make) -> None:
    journal = make()
    for number in range(20):
        journal.settle(row(number))
    batch = journal.read(1)
    journal.confirm(batch)
    assert len(batch.rows) <= 1
    assert 3 <= len(journal.read(3000).rows) <= 6
    assert len(deliver(journal)) + len(batch.rows) == 20


def test_an_open_exchange_keeps_its_own_segment_and_no_other(make: Make) -> None:
    journal = make(segment_bytes=2048)
    assert journal.intend(intent("long"))
    for number in range(50):
        journal.settle(row(number))
    deliver(journal)
    first, *others = segments_of(journal.folder)
    assert (first.stem, len(others)) == ("00000001", 1)
    journal.settle(row(99, id=ExchangeId("long")))
    assert not first.exists()
    assert [one.id for one in deliver(journal)] == ["long"]


def test_a_second_attempt_announces_again(make: Make) -> None:
    journal = make(segment_bytes=2048)
    assert journal.intend(intent("a"))
    for number in range(20):
        journal.settle(row(number))
    assert journal.intend(intent("a"))
    deliver(journal)
    journal.settle(row(30, id=ExchangeId("a")))
    deliver(journal)
    assert len(segments_of(journal.folder)) == 1


def test_files_are_for_their_owner_alone(make: Make) -> None:
    journal = make()
    journal.settle(row(1))
    assert journal.folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in journal.folder.iterdir())


@pytest.mark.parametrize("room", [0, 1, 200, 700])
def test_a_full_disk_refuses_intents_and_keeps_settlements_in_memory(make: Make, room: int) -> None:
    disk = FullDisk()
    journal = make(disk=disk)
    journal.settle(row(1))
    assert journal.intend(intent("open"))
    assert healthy(journal)
    disk.room = room
    journal.settle(row(2))
    journal.settle(row(3))
    assert not journal.intend(intent("refused"))
    assert "cannot be written" in str(journal.trouble)
    journal.probe()
    assert not healthy(journal)
    disk.room = None
    journal.probe()
    assert healthy(journal)
    assert journal.intend(intent("taken"))
    assert sorted(one.id for one in deliver(journal)) == [row(number).id for number in (1, 2, 3)]
    whole = b"".join(path.read_bytes() for path in segments_of(journal.folder))
    assert whole.endswith(b"\n")
    assert b"refused" not in whole


def test_what_memory_holds_is_delivered_while_the_disk_is_full(make: Make) -> None:
    disk = FullDisk()
    journal = make(disk=disk)
    disk.room = 0
    for number in range(5):
        journal.settle(row(number))
    assert [one.id for one in deliver(journal)] == [row(number).id for number in range(5)]
    disk.room = None
    journal.probe()
    assert journal.trouble is None
    assert journal.lost == 0


def test_a_torn_entry_that_cannot_be_taken_back_spoils_nothing(make: Make) -> None:
    disk = FullDisk()
    journal = make(disk=disk)
    journal.settle(row(1))
    disk.room, disk.truncates = 100, False
    journal.settle(row(2))
    disk.room, disk.truncates = None, True
    journal.settle(row(3))
    journal.probe()
    die(journal)
    (estate,) = claim(journal.folder.parent, Path())
    found = [one for rows in estate.rows() for one in rows]
    assert sorted(one.id for one in found) == [row(number).id for number in (1, 2, 3)]
    assert [one.torn for one in estate.damaged] == [True]
    estate.release()


def test_without_descriptors_the_segment_grows(make: Make) -> None:
    disk = FullDisk()
    journal = make(disk=disk, segment_bytes=2048)
    disk.opens = False
    for number in range(20):
        journal.settle(row(number))
    assert journal.trouble is None
    assert len(segments_of(journal.folder)) == 1
    disk.opens = True
    for number in range(20, 30):
        journal.settle(row(number))
    assert len(segments_of(journal.folder)) > 1
    assert len(deliver(journal)) == 30


def test_a_segment_that_cannot_be_begun_leaves_nothing(make: Make) -> None:
    disk = FullDisk()
    journal = make(disk=disk, segment_bytes=1000)
    journal.settle(row(1))
    disk.room = 700  # for the next entry, and not for the segment that should follow it
    journal.settle(row(2))
    disk.room = None
    journal.settle(row(3))
    journal.settle(row(4))
    journal.probe()
    assert all(path.read_bytes().startswith(HEAD) for path in segments_of(journal.folder))
    assert sorted(one.id for one in deliver(journal)) == [row(number).id for number in (1, 2, 3, 4)]


def test_over_its_bound_the_spool_is_trouble_until_it_is_delivered(make: Make) -> None:
    journal = make(segment_bytes=2048, spool_bytes_max=10_000)
    number = 0
    while journal.trouble is None:
        journal.settle(row(number := number + 1))
    assert "over 10000" in journal.trouble
    journal.settle(row(1000))  # what runs may end all the same
    assert len(deliver(journal)) == number + 1
    assert journal.trouble is None


def test_memory_has_a_bound_too_and_loss_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, log: RecordingLog
) -> None:
    events: list[str] = []
    monkeypatch.setattr(log, "event", lambda message, **_: events.append(message))
    monkeypatch.setattr(journals, "MEMORY_ROWS_MAX", 3)
    disk = FullDisk()
    journal = make(disk=disk)
    disk.room = 0
    for number in range(5):
        journal.settle(row(number))
    assert (journal.lost, journal.waiting) == (2, 3)
    assert sum("LOST" in event for event in events) == 2


def test_closed_with_rows_that_nobody_took_the_log_has_them(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []
    disk = FullDisk()
    journal = make(disk=disk)
    monkeypatch.setattr(journal._log, "event", lambda message, **facts: told.append({"message": message, **facts}))
    disk.room = 0
    journal.settle(row(7))
    journal.close()
    (last,) = [one for one in told if one["message"] == "journal: a settlement could not be kept"]
    assert row(7).id in str(last["entry"])


def test_a_damaged_record_of_our_own_is_skipped_and_told(make: Make) -> None:
    journal = make()
    for number in range(3):
        journal.settle(row(number))
    (path,) = segments_of(journal.folder)
    data = path.read_bytes()
    path.write_bytes(data.replace(row(1).id.encode(), b"X" * len(row(1).id)))
    batch = journal.read(READ)
    assert [one.id for one in batch.rows] == [row(0).id, row(2).id]
    assert len(batch.damaged) == 1
    journal.confirm(batch)
    assert journal.waiting == 0


def test_a_living_process_is_not_inherited_from(make: Make, tmp_path: Path) -> None:
    journal = make()
    journal.settle(row(1))
    assert list(claim(tmp_path, Path())) == []


def test_a_dead_process_is_inherited_from_once(make: Make, tmp_path: Path, log: RecordingLog) -> None:
    journal = make(segment_bytes=2048)
    for number in range(10):
        assert journal.intend(intent(row(number).id))
        journal.settle(row(number))
    assert journal.intend(intent("cut"))
    die(journal)
    (estate,) = claim(tmp_path, Path())
    assert list(claim(tmp_path, Path())) == [], "another heir finds it taken"
    *settled, interrupted = estate.rows()
    assert [one for rows in settled for one in rows] == [row(number) for number in range(10)]
    (cut,) = interrupted
    assert (cut.id, cut.outcome, cut.cost_nanousd, cut.cost_source, cut.status) == (
        "cut",
        "interrupted",
        WORST_CASE,
        "estimated",
        0,
    )
    estate.release()
    (estate,) = claim(tmp_path, Path())
    estate.remove(log)
    assert list(tmp_path.iterdir()) == []


def test_an_heir_that_opened_the_lock_before_it_was_removed_inherits_nothing(
    make: Make, tmp_path: Path, log: RecordingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make()
    die(journal)
    (estate,) = claim(tmp_path, Path())
    lock = os.open

    def opened_too_early(path: Any, *arguments: Any) -> int:
        descriptor = lock(path, *arguments)
        if path == journal.folder / journals.LOCK:
            estate.remove(log)
        return descriptor

    monkeypatch.setattr("proxy.server.journal.os.open", opened_too_early)
    assert list(claim(tmp_path, Path())) == []


def test_a_journal_of_a_newer_version_is_left_as_it_is(make: Make, tmp_path: Path) -> None:
    journal = make()
    journal.settle(row(1))
    die(journal)
    (path,) = segments_of(journal.folder)
    path.write_bytes(b"penstock-journal 2\n" + path.read_bytes()[len(HEAD) :])
    (estate,) = claim(tmp_path, Path())
    with pytest.raises(Foreign, match="a newer Penstock wrote it"):
        list(estate.rows())
    estate.release()
    assert path.exists()


def test_what_a_killed_start_left_is_cleared_when_it_is_old(make: Make, tmp_path: Path, log: RecordingLog) -> None:
    make()
    for name, age_s in ((".new-old", 3600.0), (".new-young", 0.0), ("shell", 0.0)):
        (tmp_path / name).mkdir()
        if name != "shell":
            (tmp_path / name / journals.LOCK).touch()
        at = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (at, at))
    estates: list[Estate] = list(claim(tmp_path, Path()))
    assert [one.folder.name for one in estates] == [".new-old"]
    estates[0].remove(log)
    assert not (tmp_path / "shell").exists()
    assert (tmp_path / ".new-young").exists()
