"""F090 to F092: the store away, its answer lost, the disk full; and the outbox when nothing is wrong."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.core.backoff import BackoffPolicy
from proxy.core.ledger import LedgerRow
from proxy.core.summary import Span
from proxy.ports import Books, Ledger, StoreAway
from proxy.server import outbox as outboxes
from proxy.server.journal import Journal
from proxy.server.outbox import Outbox
from proxy.stores.postgres.ledger import PostgresLedger
from proxy.stores.sqlite.ledger import SqliteLedger
from tests.gateway import RecordingLog
from tests.postgres import Postgres
from tests.rows import DAY, row
from tests.server.crash import intent
from tests.server.disks import FullDisk
from tests.stopwatch import Stopwatch

QUICK = BackoffPolicy(first_s=0.01, factor=2.0, max_s=0.05, jitter=0.25)
Made = Callable[..., Outbox]


class Watched(SqliteLedger):
    """The real one, which remembers the sizes of the batches that it was given."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.batches: list[int] = []

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        self.batches.append(len(rows))
        return await super().write(rows)


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


@pytest.fixture
async def make(tmp_path: Path, log: RecordingLog) -> AsyncIterator[Made]:
    made: list[Outbox] = []

    def new(
        ledger: Ledger, *, disk: FullDisk | None = None, journal: dict[str, Any] | None = None, **options: Any
    ) -> Outbox:
        own = Journal(tmp_path / "journal", log, disk=disk, **(journal or {}))
        made.append(Outbox(own, ledger, log, **{"batch_s": 0.02, "scan_s": 0.05, "backoff": QUICK, **options}))
        return made[-1]

    yield new
    for one in made:
        if one._tasks and not one._closing:
            await one.close()
    assert [str(bug) for bug in log.bugs] in ([], [PROVOKED])


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path / "ledger.sqlite3", busy_s=0.02)
    yield watched
    await watched.close()


PROVOKED = "a bug, for this test"


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


async def booked(ledger: Ledger) -> list[str]:
    return [one.row.id for one in await ledger.booked(0, 100_000)]


async def counted(ledger: Ledger) -> int:
    return (await ledger.summary(Span(DAY, DAY))).total.calls


async def test_rows_arrive_in_batches_and_nothing_is_left_behind(make: Made, ledger: Watched, tmp_path: Path) -> None:
    outbox = make(ledger)
    books: Books = outbox
    assert await outbox.start()
    for number in range(1450):
        assert books.intend(intent(row(number).id))
        books.book(row(number))
    assert outbox.state().waiting_rows == 1450
    await until(lambda: outbox.state().waiting_rows == 0)
    assert await booked(ledger) == [row(number).id for number in range(1450)]
    assert 2 <= len(ledger.batches) <= 9
    state = outbox.state()
    assert (state.state, state.trouble, state.error, state.delivered) == ("ok", None, None, 1450)
    await outbox.close()
    assert list((tmp_path / "journal").iterdir()) == []


async def test_a_lone_row_arrives_within_the_batch_time(make: Made, ledger: Watched) -> None:
    outbox = make(ledger, batch_s=0.1)
    await outbox.start()
    for number in range(3):
        watch = Stopwatch.patient()
        outbox.book(row(number))
        assert ledger.batches == [1] * number
        await until(lambda: outbox.state().waiting_rows == 0)
        assert watch.passed_s > 0.09
        assert watch.spent_s < 2
    assert await counted(ledger) == 3


async def test_a_full_batch_does_not_wait(make: Made, ledger: Watched) -> None:
    outbox = make(ledger, batch_s=5.0, batch_rows=10)
    await outbox.start()
    for number in range(10):
        outbox.book(row(number))
    await until(lambda: outbox.state().waiting_rows == 0, 2)


async def test_closing_delivers_what_waits(make: Made, ledger: Watched, tmp_path: Path) -> None:
    outbox = make(ledger, batch_s=5.0)
    await outbox.start()
    for number in range(250):
        outbox.book(row(number))
    await outbox.close()
    assert await counted(ledger) == 250
    assert list((tmp_path / "journal").iterdir()) == []


async def test_sqlite_locked_costs_time_and_nothing_else(make: Made, tmp_path: Path) -> None:
    ledger = Watched(tmp_path / "ledger.sqlite3", busy_s=0.8)
    await ledger.open()
    outbox = make(ledger)
    await outbox.start()
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    lags = []
    for number in range(120):
        assert outbox.trouble is None
        watch = Stopwatch.patient()
        assert outbox.intend(intent(row(number).id))
        outbox.book(row(number))
        await asyncio.sleep(0.001)
        lags.append(0.0 if not watch.is_over(0.5) else watch.spent_s)
    await until(lambda: outbox.state().state == "behind")
    state = outbox.state()
    assert "locked" in str(state.error)
    assert state.waiting_rows == 120
    assert state.away_s is not None
    assert max(lags) < 0.7, "the loop never waits for the store"
    other.execute("COMMIT")
    other.close()
    await until(lambda: outbox.state().waiting_rows == 0)
    assert outbox.state().state == "ok"
    assert await counted(ledger) == len(set(await booked(ledger))) == 120
    await outbox.close()
    await ledger.close()


async def test_a_full_sqlite_file_costs_time_and_nothing_else(make: Made, ledger: Watched) -> None:
    await ledger.open()

    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await ledger._threads.write(fill)
    outbox = make(ledger)
    await outbox.start()
    for number in range(200):
        outbox.book(row(number, model="m" * 200))
    await until(lambda: outbox.state().state == "behind")
    assert "full" in str(outbox.state().error)
    await until(lambda: outbox.state().waiting_rows == 0)  # it is opened anew, and the bound was the connection's
    assert await counted(ledger) == 200


async def test_postgres_stopped_and_started(make: Made, tmp_path: Path) -> None:
    server = Postgres()
    server.start()
    try:
        ledger = PostgresLedger(await server.new_database())
        outbox = make(ledger)
        assert await outbox.start()
        for number in range(50):
            outbox.book(row(number))
        await until(lambda: outbox.state().waiting_rows == 0)
        for number in range(50, 100):
            outbox.book(row(number))
        server.stop()
        for number in range(100, 150):
            outbox.book(row(number))
        await until(lambda: outbox.state().state == "behind")
        assert outbox.trouble is None
        with pytest.raises(StoreAway):
            await ledger.row("req_1")
        server.start()
        await until(lambda: outbox.state().waiting_rows == 0)
        assert await counted(ledger) == len(set(await booked(ledger))) == 150
        await outbox.close()
        await ledger.close()
    finally:
        server.remove()


async def test_a_store_that_is_away_at_start_is_no_reason_to_wait(
    make: Made, tmp_path: Path, log: RecordingLog
) -> None:
    left = Journal(tmp_path / "journal", log)
    left.settle(row(1))
    os.close(left._lock)
    ledger = PostgresLedger(f"postgresql:///none?host={tmp_path}")
    outbox = make(ledger)
    watch = Stopwatch.patient()
    assert not await outbox.start()
    assert watch.spent_s < 2
    await outbox.close(0.05)
    await ledger.close()


class CutAfterCommit:
    """A proxy before PostgreSQL that forwards a COMMIT, waits until it is done, and then drops the connection."""

    def __init__(self, server: Postgres) -> None:
        self._path = f"{server.folder}/.s.PGSQL.5432"
        self.cuts_left = 0
        self.cut = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, folder: Path) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(folder / ".s.PGSQL.5432"))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_unix_connection(self._path)
        back = asyncio.create_task(self._pump(up_reader, writer))
        try:
            while data := await reader.read(65536):
                if b"COMMIT" in data and self.cuts_left:
                    self.cuts_left -= 1
                    back.cancel()
                    await asyncio.wait([back])
                    up_writer.write(data)
                    assert b"COMMIT" in await up_reader.read(65536)  # the server's own word that it is done
                    self.cut += 1
                    return
                up_writer.write(data)
        finally:
            back.cancel()
            up_writer.close()
            writer.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


async def test_a_lost_acknowledgement_books_nothing_twice(
    make: Made, postgres: Postgres, database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("s")
    proxy = CutAfterCommit(postgres)
    await proxy.start(folder)
    ledger = PostgresLedger(database.replace(str(postgres.folder), str(folder)))
    await ledger.open()
    proxy.cuts_left = 3
    outbox = make(ledger)
    await outbox.start()
    for number in range(25):
        outbox.book(row(number))
    await until(lambda: outbox.state().waiting_rows == 0)
    assert proxy.cut == 3
    assert await counted(ledger) == 25
    assert await booked(ledger) == [row(number).id for number in range(25)]
    await outbox.close()
    await ledger.close()
    await proxy.stop()


async def test_no_space_for_journal_and_ledger_refuses_before_anything_is_lost(
    make: Made, ledger: Watched, tmp_path: Path
) -> None:
    await ledger.open()
    disk = FullDisk()
    outbox = make(ledger, disk=disk)
    await outbox.start()
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    running = [row(number).id for number in range(40)]
    assert all(outbox.intend(intent(one)) for one in running)
    disk.room = 1400
    for number in range(40):
        outbox.book(row(number))  # what runs ends, and is kept
    assert outbox.trouble is not None
    assert outbox.state().state == "refusing"
    assert not outbox.intend(intent("new"))
    await until(lambda: outbox.state().error is not None)
    assert outbox.trouble is not None
    disk.room = None
    other.execute("COMMIT")
    other.close()
    await until(lambda: outbox.state().waiting_rows == 0 and outbox.trouble is None)
    assert outbox.intend(intent("new"))
    outbox.book(row(99, id="new"))
    await until(lambda: outbox.state().waiting_rows == 0)
    assert sorted(await booked(ledger)) == sorted([*running, "new"])
    assert await counted(ledger) == 41
    assert outbox.state().lost == 0


async def test_with_nothing_to_deliver_a_disk_that_is_well_again_is_noticed(
    make: Made, ledger: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "PROBE_S", 0.02)
    disk = FullDisk()
    outbox = make(ledger, disk=disk)
    await outbox.start()
    disk.room = 0
    assert not outbox.intend(intent("a"))
    await asyncio.sleep(0.1)
    assert outbox.trouble is not None
    disk.room = None
    await until(lambda: outbox.trouble is None)


async def test_a_spool_over_its_bound_refuses_until_the_store_is_back(
    make: Made, ledger: Watched, tmp_path: Path
) -> None:
    await ledger.open()
    outbox = make(ledger, journal={"spool_bytes_max": 50_000, "segment_bytes": 8192})
    await outbox.start()
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    number = 0
    while outbox.trouble is None:
        outbox.book(row(number := number + 1))
    assert outbox.state().state == "refusing"
    other.execute("COMMIT")
    other.close()
    await until(lambda: outbox.trouble is None)
    await until(lambda: outbox.state().waiting_rows == 0)
    assert await counted(ledger) == number


async def test_a_bug_is_told_and_the_work_goes_on(
    make: Made, ledger: Watched, log: RecordingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "RESTART_S", 0.01)
    outbox = make(ledger)
    await outbox.start()
    write = ledger.write

    async def broken(rows: Sequence[LedgerRow]) -> int:
        monkeypatch.setattr(ledger, "write", write)
        raise ZeroDivisionError(PROVOKED)

    monkeypatch.setattr(ledger, "write", broken)
    outbox.book(row(1))
    outbox.book(row(2))
    await until(lambda: outbox.state().waiting_rows == 0)
    assert [str(bug) for bug in log.bugs] == [PROVOKED]
    assert await counted(ledger) == 2


async def test_a_journal_that_somebody_took_away_refuses(make: Made, ledger: Watched) -> None:
    outbox = make(ledger)
    await outbox.start()
    shutil.rmtree(outbox._journal.folder)
    outbox.book(row(1))
    await until(lambda: outbox.trouble is not None)
    assert outbox.state().state == "refusing"
    await outbox.close(0.0)


async def test_closed_while_the_store_is_away_the_next_start_delivers(
    make: Made, ledger: Watched, tmp_path: Path
) -> None:
    await ledger.open()
    outbox = make(ledger)
    await outbox.start()
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for number in range(30):
        outbox.book(row(number))
    await outbox.close(0.1)
    other.execute("COMMIT")
    other.close()
    following = make(ledger)
    assert await following.start()
    assert await counted(ledger) == 30
    assert following.state().inherited <= 30
    await following.close()
    assert list((tmp_path / "journal").iterdir()) == []


async def test_a_living_sibling_delivers_what_a_dead_process_left_within_seconds(
    make: Made, ledger: Watched, tmp_path: Path, log: RecordingLog
) -> None:
    siblings = [make(ledger) for _ in range(2)]
    for one in siblings:
        assert await one.start()
    victim = Journal(tmp_path / "journal", log)
    for number in range(150):
        assert victim.intend(intent(row(number).id))
        victim.settle(row(number))
    assert victim.intend(intent("cut"))
    await asyncio.sleep(0.15)
    assert await counted(ledger) == 0, "it lives"
    os.close(victim._lock)
    await until(lambda: sum(one.state().inherited for one in siblings) == 151)
    await until(lambda: not victim.folder.exists())
    assert sum(one.state().interrupted for one in siblings) == 1
    assert await counted(ledger) == 151


async def test_a_newer_journal_is_left_alone_and_told_once(
    make: Made, ledger: Watched, tmp_path: Path, log: RecordingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(log, "event", lambda message, **_: events.append(message))
    folder = tmp_path / "journal" / "1-newer"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "00000001.journal").write_bytes(b"penstock-journal 2\n...\n")
    outbox = make(ledger)
    assert await outbox.start()
    await asyncio.sleep(0.15)
    assert events == ["journal: left alone"]
    assert (folder / "00000001.journal").exists()


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_closed_at_any_moment_nothing_is_lost_or_doubled(make: Made, ledger: Watched, turns: int) -> None:
    outbox = make(ledger, batch_s=0.0, batch_rows=7)
    await outbox.start()
    for number in range(60):
        outbox.book(row(number))
    for _ in range(turns):
        await asyncio.sleep(0)
    await outbox.close(0.0)
    following = make(ledger)
    assert await following.start()
    assert await counted(ledger) == len(set(await booked(ledger))) == 60
