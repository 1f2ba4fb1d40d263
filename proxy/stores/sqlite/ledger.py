"""The ledger in one SQLite file, shared by the workers of a machine.

One thread writes and one reads, so that the loop never waits for a disk or for another process's lock; with the
write-ahead log a reader sees the last commit and stands in nobody's way. A batch is one transaction: rows, and what the
new ones among them add to the roll-ups.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from proxy.core import histogram, rollup
from proxy.core.ledger import (
    COLUMNS,
    COUNT_MAX,
    Booked,
    Cursor,
    LedgerFilter,
    LedgerRow,
    Page,
    Spender,
    as_stored,
    columns_of,
    parameters_of,
    row_from,
)
from proxy.core.rollup import EVERYONE, SUMS, Key, Measures
from proxy.core.summary import Span, Summary, summarise
from proxy.core.text import storable
from proxy.stores.migrations import Migration, load
from proxy.stores.sqlite.connection import BUSY_S, reader, transaction, writer
from proxy.stores.sqlite.threads import TwoThreads

PART: Final = "ledger"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations")

ROWS_A_STATEMENT: Final = 64

# The statements are put together once, from constants; every value is a parameter.
_NAMES: Final = ", ".join(COLUMNS)
_MEASURES: Final = ", ".join(Measures._fields)
_ADDED: Final = ", ".join(f"sum({name})" for name in SUMS) + ", add_up(first_event), add_up(total)"
_INTO_LEDGER: Final = f"INSERT INTO ledger ({_NAMES})"
_KNOWN: Final = "SELECT id FROM ledger WHERE id IN (SELECT value FROM json_each(?))"
_ID: Final = COLUMNS.index("id")
# CROSS JOIN: key by key, by the primary key; left to itself it would walk all that an account has.
_HELD: Final = (
    f"SELECT account, day, dimension, rollup.value, {_MEASURES} FROM json_each(?) AS key CROSS JOIN rollup "  # noqa: S608
    "ON account = key.value ->> 0 AND day = key.value ->> 1 AND dimension = key.value ->> 2 "
    "AND rollup.value = key.value ->> 3"
)
_GROUP: Final = "SELECT count(*) FROM rollup WHERE account = ? AND day = ? AND dimension = ?"
_INTO_ROLLUP: Final = f"INSERT OR REPLACE INTO rollup (account, day, dimension, value, {_MEASURES})"
_WANTED: Final = """
    AND (:virtual_key IS NULL OR virtual_key = :virtual_key)
    AND (:route IS NULL OR route = :route)
    AND (:provider IS NULL OR provider = :provider)
    AND (:model IS NULL OR model = :model)
    AND (:outcome IS NULL OR outcome = :outcome)
    AND (:status IS NULL OR status = :status)
    AND (:code IS NULL OR code = :code)
    AND (:tag IS NULL OR instr(char(10) || tags || char(10), char(10) || :tag || char(10)) > 0)
"""
_OF_ACCOUNT: Final = "AND account = :account"
_PAGE: Final = (
    f"SELECT {_NAMES} FROM ledger WHERE started_us >= :since_us AND started_us < :until_us "  # noqa: S608
    "AND (started_us, id) < (:started_us, :id) {account} "
    f"{_WANTED} ORDER BY started_us DESC, id DESC LIMIT :limit"
)
_PAGES: Final = {False: _PAGE.format(account=""), True: _PAGE.format(account=_OF_ACCOUNT)}
_BOOKED: Final = (
    f"SELECT seq, {_NAMES} FROM ledger WHERE seq > :seq "  # noqa: S608
    # The plus keeps SQLite from walking the index by time, which it takes for the better way: 90 ms of a million rows.
    "AND (:account IS NULL OR account = :account) AND +started_us >= :since_us AND +started_us < :until_us "
    f"{_WANTED} ORDER BY seq LIMIT :limit"
)
# Clients choose request ids, so a row's own id comes first.
_ROW: Final = (
    f"SELECT {_NAMES} FROM ledger WHERE seq = coalesce("  # noqa: S608
    "(SELECT seq FROM ledger WHERE id = :id AND (:account IS NULL OR account = :account)), "
    "(SELECT max(seq) FROM ledger WHERE request_id = :id AND (:account IS NULL OR account = :account)))"
)
_NEWEST: Final = "SELECT coalesce(max(seq), 0) FROM ledger"
_SPENT: Final[Mapping[Spender, str]] = {
    "everybody": """
        SELECT coalesce(sum(cost_nanousd), 0) FROM ledger
        WHERE :name = '' AND started_us >= :since AND started_us < :until""",
    "account": """
        SELECT coalesce(sum(cost_nanousd), 0) FROM ledger
        WHERE account = :name AND started_us >= :since AND started_us < :until""",
    "virtual_key": """
        SELECT coalesce(sum(cost_nanousd), 0) FROM ledger
        WHERE virtual_key = :name AND started_us >= :since AND started_us < :until""",
}
_SUMMARY: Final = (
    f"SELECT dimension, value, {_ADDED} FROM rollup "  # noqa: S608
    "WHERE account = ? AND day BETWEEN ? AND ? GROUP BY dimension, value"
)
_DAYS: Final = (
    f"SELECT day, {_MEASURES} FROM rollup "  # noqa: S608
    "WHERE account = ? AND day BETWEEN ? AND ? AND dimension = 'all' ORDER BY day"
)
_FORGET: Final = """
    DELETE FROM ledger WHERE seq IN
    (SELECT seq FROM ledger WHERE started_us < ? ORDER BY started_us, id LIMIT ?)
"""


class SqliteLedger:
    """The port `Ledger`. ``read_only``: for a command beside a running server; nothing is made or changed."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        busy_s: float = BUSY_S,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._read_only = read_only
        self._threads = TwoThreads(
            path,
            PART,
            write=None if read_only else lambda: writer(path, PART, migrations, busy_s),
            read=lambda: _reader(path, migrations, busy_s),
        )

    async def open(self) -> None:
        if not self._read_only:
            await self._threads.write(lambda _: None)
        await self._threads.read(lambda _: None)

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        return await self._threads.write(lambda connection: _write_rows(connection, rows))

    async def row(self, exchange_id: str, account: str | None = None) -> LedgerRow | None:
        wanted = {"id": storable(exchange_id), "account": None if account is None else storable(account)}
        return await self._threads.read(lambda connection: _one_row(connection, wanted))

    async def page(self, wanted: LedgerFilter, limit: int, after: Cursor | None = None) -> Page:
        return await self._threads.read(lambda connection: _page(connection, wanted, limit, after))

    async def booked(self, after_seq: int, limit: int, wanted: LedgerFilter | None = None) -> tuple[Booked, ...]:
        values = {**parameters_of(wanted or LedgerFilter()), "seq": after_seq, "limit": limit}
        return await self._threads.read(lambda connection: tuple(_booked(connection.execute(_BOOKED, values))))

    async def newest_seq(self) -> int:
        return await self._threads.read(lambda connection: int(connection.execute(_NEWEST).fetchone()[0]))

    async def spent(self, by: Spender, name: str, since_us: int, until_us: int) -> int:
        window = {"name": storable(name), "since": since_us, "until": until_us}
        return await self._threads.read(lambda connection: int(connection.execute(_SPENT[by], window).fetchone()[0]))

    async def summary(self, span: Span, account: str | None = None) -> Summary:
        return await self._threads.read(lambda connection: _summary(connection, span, account))

    async def days(self, span: Span, account: str | None = None) -> tuple[tuple[int, Measures], ...]:
        return await self._threads.read(lambda connection: _days(connection, span, account))

    async def forget(self, before_us: int, rows_max: int) -> int:
        return await self._threads.write(lambda connection: _forget(connection, before_us, rows_max))

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._threads.close()


def _reader(path: Path, migrations: Sequence[Migration], busy_s: float) -> sqlite3.Connection:
    connection = reader(path, PART, migrations, busy_s, what="ledger")
    connection.create_aggregate("add_up", 1, _AddUp)  # type: ignore[arg-type] # typeshed knows no blobs here
    return connection


class _AddUp:
    """The aggregate `add_up`: packed histograms to their sum."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, packed: bytes) -> None:
        self._sum += histogram.unpack(packed)

    def finalize(self) -> bytes:
        return histogram.pack(self._sum)


def _write_rows(connection: sqlite3.Connection, rows: Sequence[LedgerRow]) -> int:
    columns: dict[str, tuple[tuple[Any, ...], LedgerRow]] = {}
    for row in rows:
        values = columns_of(row)
        columns.setdefault(values[_ID], (values, row))
    with transaction(connection):
        for (known,) in connection.execute(_KNOWN, (json.dumps(list(columns)),)).fetchall():
            del columns[known]
        if columns:
            _insert(connection, _INTO_LEDGER, [values for values, _ in columns.values()])
            _add(connection, rollup.roll_up(as_stored(row, values) for values, row in columns.values()))
    return len(columns)


def _add(connection: sqlite3.Connection, added: Mapping[Key, Measures]) -> None:
    """Read, add, write: the transaction holds the write lock, so nobody comes between."""
    held = _held(connection, added)
    groups = rollup.groups_of(key for key in added if key not in held)
    if groups:
        counts = {group: int(connection.execute(_GROUP, group).fetchone()[0]) for group in groups}
        added = rollup.bounded(added, held.keys(), counts)
        held |= _held(connection, [key for key in added if key.value == rollup.OTHER])
    merged = rollup.merged(added, held)
    _insert(connection, _INTO_ROLLUP, [(*key, *rollup.columns(measured)) for key, measured in merged.items()])


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, many by one statement: for each the interpreter's lock changes hands, and the serving loop waits for it.

    The numbers of rows are powers of two, so that there are few statements, and they stay prepared.
    """
    done = 0
    while done < len(rows):
        count = min(1 << (len(rows) - done).bit_length() - 1, ROWS_A_STATEMENT)
        marks = f"({','.join('?' * len(rows[0]))})"
        values = [value for row in rows[done : done + count] for value in row]
        connection.execute(f"{into} VALUES {','.join([marks] * count)}", values)
        done += count


def _held(connection: sqlite3.Connection, keys: Mapping[Key, Measures] | Sequence[Key]) -> dict[Key, Measures]:
    found = connection.execute(_HELD, (json.dumps(list(keys)),)).fetchall()
    return {Key(*columns[:4]): rollup.from_columns(columns[4:]) for columns in found}


def _one_row(connection: sqlite3.Connection, wanted: Mapping[str, str | None]) -> LedgerRow | None:
    values = connection.execute(_ROW, wanted).fetchone()
    return None if values is None else _row(values)


def _row(values: Sequence[Any]) -> LedgerRow | None:
    return row_from(dict(zip(COLUMNS, values, strict=True)))


def _booked(found: Iterator[Sequence[Any]]) -> Iterator[Booked]:
    for values in found:
        row = _row(values[1:])
        if row is not None:
            yield Booked(values[0], row)


def _page(connection: sqlite3.Connection, wanted: LedgerFilter, limit: int, after: Cursor | None) -> Page:
    behind = after or Cursor(COUNT_MAX + 1, "")
    values = {
        **parameters_of(wanted),
        "started_us": behind.started_us,
        "id": behind.id,
        "limit": limit + 1,  # one more tells whether there is another page
    }
    found = connection.execute(_PAGES[wanted.account is not None], values).fetchall()
    rows = tuple(row for values in found[:limit] if (row := _row(values)) is not None)
    return Page(rows, Cursor(rows[-1].started_us, rows[-1].id) if rows and len(found) > limit else None)


def _summary(connection: sqlite3.Connection, span: Span, account: str | None) -> Summary:
    found = connection.execute(_SUMMARY, (account or EVERYONE, span.first_day, span.last_day))
    sums = [(dimension, value, rollup.from_columns(values)) for dimension, value, *values in found]
    return summarise(span, account, sums, _days(connection, span, account))


def _days(connection: sqlite3.Connection, span: Span, account: str | None) -> tuple[tuple[int, Measures], ...]:
    found = connection.execute(_DAYS, (account or EVERYONE, span.first_day, span.last_day))
    return tuple((day, rollup.from_columns(values)) for day, *values in found)


def _forget(connection: sqlite3.Connection, before_us: int, rows_max: int) -> int:
    with transaction(connection):
        return connection.execute(_FORGET, (before_us, rows_max)).rowcount
