"""The ledger in PostgreSQL, shared by all instances.

A batch is one transaction: rows, and what the new ones among them add to the roll-ups. An advisory lock lets one batch in
at a time: two that touch the same roll-ups in another order would end in a deadlock, and a row's place in the order of
booking (`seq`) is then never seen before a lower one. Rows travel as one JSON parameter, which PostgreSQL takes apart: the
loop is not held up by thousands of parameters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

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
from proxy.core.rollup import EVERYONE, SUMS, Group, Key, Measures
from proxy.core.summary import Span, Summary, summarise
from proxy.core.text import storable
from proxy.stores.migrations import Migration, load
from proxy.stores.postgres.connection import Database

if TYPE_CHECKING:
    from proxy.stores.postgres.connection import Connection

PART: Final = "ledger"
MIGRATIONS: Final = load(Path(__file__).parent / "migrations")
_WRITING: Final = 0x50454E02

# The statements are put together once, from constants; every value is a parameter.
_NAMES: Final = ", ".join(COLUMNS)
_KEY: Final = ", ".join(Key._fields)
_MEASURES: Final = ", ".join(Measures._fields)
_ADDED: Final = ", ".join(f"sum({name})::BIGINT" for name in SUMS) + ", array_agg(first_event), array_agg(total)"
_INSERT: Final = (
    f"INSERT INTO penstock_ledger ({_NAMES}) SELECT {_NAMES} "  # noqa: S608
    "FROM json_populate_recordset(NULL::penstock_ledger, $1::JSON) ON CONFLICT (id) DO NOTHING RETURNING id"
)
_HELD: Final = (
    f"SELECT {_KEY}, {', '.join(f'held.{name}' for name in Measures._fields)} "  # noqa: S608
    "FROM json_populate_recordset(NULL::penstock_rollup, $1::JSON) AS wanted "
    f"JOIN penstock_rollup AS held USING ({_KEY})"
)
_GROUPS: Final = """
    SELECT account, day, dimension, count(held.value)
    FROM json_populate_recordset(NULL::penstock_rollup, $1::JSON) AS wanted
    LEFT JOIN penstock_rollup AS held USING (account, day, dimension) GROUP BY account, day, dimension
"""
_KEEP: Final = (
    f"INSERT INTO penstock_rollup ({_KEY}, {_MEASURES}) SELECT {_KEY}, {_MEASURES} "  # noqa: S608
    "FROM json_populate_recordset(NULL::penstock_rollup, $1::JSON) "
    f"ON CONFLICT ({_KEY}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in Measures._fields)}"
)
# The parameters of a filter, $1 to $11; the statement's own follow.
_FILTER: Final = (
    "since_us",
    "until_us",
    "account",
    "virtual_key",
    "route",
    "provider",
    "model",
    "outcome",
    "status",
    "code",
    "tag",
)
_WANTED: Final = """
    started_us >= $1 AND started_us < $2
    AND ($3::TEXT IS NULL OR account = $3)
    AND ($4::TEXT IS NULL OR virtual_key = $4)
    AND ($5::TEXT IS NULL OR route = $5)
    AND ($6::TEXT IS NULL OR provider = $6)
    AND ($7::TEXT IS NULL OR model = $7)
    AND ($8::TEXT IS NULL OR outcome = $8)
    AND ($9::BIGINT IS NULL OR status = $9)
    AND ($10::TEXT IS NULL OR code = $10)
    AND ($11::TEXT IS NULL OR position(chr(10) || $11 || chr(10) IN chr(10) || tags || chr(10)) > 0)
"""
_PAGE: Final = (
    f"SELECT {_NAMES} FROM penstock_ledger WHERE {_WANTED} AND (started_us, id) < ($12, $13) "  # noqa: S608
    "ORDER BY started_us DESC, id DESC LIMIT $14"
)
# The same, said so that the index by account serves.
_PAGE_OF_ACCOUNT: Final = _PAGE.replace("($3::TEXT IS NULL OR account = $3)", "account = $3")
_BOOKED: Final = f"SELECT seq, {_NAMES} FROM penstock_ledger WHERE {_WANTED} AND seq > $12 ORDER BY seq LIMIT $13"  # noqa: S608
# Clients choose request ids, so a row's own id comes first.
_ROW: Final = (
    f"SELECT {_NAMES} FROM penstock_ledger WHERE seq = coalesce("  # noqa: S608
    "(SELECT seq FROM penstock_ledger WHERE id = $1 AND ($2::TEXT IS NULL OR account = $2)), "
    "(SELECT max(seq) FROM penstock_ledger WHERE request_id = $1 AND ($2::TEXT IS NULL OR account = $2)))"
)
_NEWEST: Final = "SELECT coalesce(max(seq), 0) FROM penstock_ledger"
_SPENT: Final[Mapping[Spender, str]] = {
    "everybody": """
        SELECT coalesce(sum(cost_nanousd), 0)::BIGINT FROM penstock_ledger
        WHERE $1::TEXT = '' AND started_us >= $2 AND started_us < $3""",
    "account": """
        SELECT coalesce(sum(cost_nanousd), 0)::BIGINT FROM penstock_ledger
        WHERE account = $1 AND started_us >= $2 AND started_us < $3""",
    "virtual_key": """
        SELECT coalesce(sum(cost_nanousd), 0)::BIGINT FROM penstock_ledger
        WHERE virtual_key = $1 AND started_us >= $2 AND started_us < $3""",
}
_SUMMARY: Final = (
    f"SELECT dimension, value, {_ADDED} FROM penstock_rollup "  # noqa: S608
    "WHERE account = $1 AND day BETWEEN $2 AND $3 GROUP BY dimension, value"
)
_DAYS: Final = (
    f"SELECT day, {_MEASURES} FROM penstock_rollup "  # noqa: S608
    "WHERE account = $1 AND day BETWEEN $2 AND $3 AND dimension = 'all' ORDER BY day"
)
_FORGET: Final = """
    DELETE FROM penstock_ledger WHERE seq IN
    (SELECT seq FROM penstock_ledger WHERE started_us < $1 ORDER BY started_us, id LIMIT $2)
"""


class PostgresLedger:
    """The port `Ledger`. ``read_only``: for a command beside running servers; nothing is made or changed."""

    def __init__(self, url: str, *, read_only: bool = False, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self._database = Database(url, PART, migrations, read_only=read_only)

    async def open(self) -> None:
        async with self._database.connection():
            return

    async def write(self, rows: Sequence[LedgerRow]) -> int:
        columns = [columns_of(row) for row in rows]
        document = _json([dict(zip(COLUMNS, values, strict=True)) for values in columns])
        async with self._database.connection(writing=True) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _WRITING)
            ids = {record[0] for record in await connection.fetch(_INSERT, document)}
            new: dict[str, LedgerRow] = {}
            for row, values in zip(rows, columns, strict=True):
                if values[0] in ids and values[0] not in new:
                    new[values[0]] = as_stored(row, values)
            if new:
                await _add(connection, rollup.roll_up(new.values()))
        return len(new)

    async def row(self, exchange_id: str, account: str | None = None) -> LedgerRow | None:
        whose = None if account is None else storable(account)
        async with self._database.connection() as connection:
            found = await connection.fetchrow(_ROW, storable(exchange_id), whose)
        return None if found is None else row_from(dict(found))

    async def page(self, wanted: LedgerFilter, limit: int, after: Cursor | None = None) -> Page:
        behind = after or Cursor(COUNT_MAX + 1, "")
        statement = _PAGE if wanted.account is None else _PAGE_OF_ACCOUNT
        async with self._database.connection() as connection:
            found = await connection.fetch(statement, *_filter(wanted), behind.started_us, behind.id, limit + 1)
        rows = tuple(row for record in found[:limit] if (row := row_from(dict(record))) is not None)
        return Page(rows, Cursor(rows[-1].started_us, rows[-1].id) if rows and len(found) > limit else None)

    async def booked(self, after_seq: int, limit: int, wanted: LedgerFilter | None = None) -> tuple[Booked, ...]:
        async with self._database.connection() as connection:
            found = await connection.fetch(_BOOKED, *_filter(wanted or LedgerFilter()), after_seq, limit)
        return tuple(Booked(record["seq"], row) for record in found if (row := row_from(dict(record))) is not None)

    async def newest_seq(self) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_NEWEST))

    async def spent(self, by: Spender, name: str, since_us: int, until_us: int) -> int:
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_SPENT[by], storable(name), since_us, until_us))

    async def summary(self, span: Span, account: str | None = None) -> Summary:
        async with self._database.connection() as connection:
            found = await connection.fetch(_SUMMARY, account or EVERYONE, span.first_day, span.last_day)
        sums = [(dimension, value, _added(values)) for dimension, value, *values in found]
        return summarise(span, account, sums, await self.days(span, account))

    async def days(self, span: Span, account: str | None = None) -> tuple[tuple[int, Measures], ...]:
        async with self._database.connection() as connection:
            found = await connection.fetch(_DAYS, account or EVERYONE, span.first_day, span.last_day)
        return tuple((day, rollup.from_columns(values)) for day, *values in found)

    async def forget(self, before_us: int, rows_max: int) -> int:
        async with self._database.connection(writing=True) as connection:
            done = await connection.execute(_FORGET, before_us, rows_max)
        return int(done.rpartition(" ")[2])  # "DELETE 3"

    async def close(self) -> None:
        await self._database.close()


async def _add(connection: "Connection", added: Mapping[Key, Measures]) -> None:
    """Read, add, write: the advisory lock lets nobody come between."""
    held = await _held(connection, added)
    groups = rollup.groups_of(key for key in added if key not in held)
    if groups:
        added = rollup.bounded(added, held.keys(), await _counts(connection, groups))
        held |= await _held(connection, [key for key in added if key.value == rollup.OTHER])
    merged = rollup.merged(added, held)
    await connection.execute(_KEEP, _json([_rollup(key, measured) for key, measured in merged.items()]))


async def _held(connection: "Connection", keys: Mapping[Key, Measures] | Sequence[Key]) -> dict[Key, Measures]:
    if not keys:
        return {}
    found = await connection.fetch(_HELD, _json([key._asdict() for key in keys]))
    return {Key(*record[:4]): rollup.from_columns(record[4:]) for record in map(tuple, found)}


async def _counts(connection: "Connection", groups: set[Group]) -> dict[Group, int]:
    wanted = [dict(zip(("account", "day", "dimension"), group, strict=True)) for group in groups]
    return {(record[0], record[1], record[2]): record[3] for record in await connection.fetch(_GROUPS, _json(wanted))}


def _rollup(key: Key, measured: Measures) -> dict[str, int | str]:
    values = rollup.columns(measured)
    shown = (f"\\x{value.hex()}" if isinstance(value, bytes) else value for value in values)  # bytea's own text form
    return {**key._asdict(), **dict(zip(Measures._fields, shown, strict=True))}


def _added(values: Sequence[Any]) -> Measures:
    """The sums of `_ADDED`: its two last are lists of packed histograms."""
    *sums, first_event, total = values
    return Measures._make((*sums, sum(map(histogram.unpack, first_event)), sum(map(histogram.unpack, total))))


def _filter(wanted: LedgerFilter) -> list[Any]:
    values = parameters_of(wanted)
    return [values[name] for name in _FILTER]


def _json(document: object) -> str:
    return orjson.dumps(document).decode()
