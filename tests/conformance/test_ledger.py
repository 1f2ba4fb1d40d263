"""One suite for every implementation of the port `Ledger`: a new store is one line in `STORES`."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core import histogram
from proxy.core.ledger import COUNT_MAX, NAME_CHARS_MAX, US_PER_DAY, Cursor, LedgerFilter, LedgerRow
from proxy.core.rollup import OTHER, Measures
from proxy.core.summary import Span, Summary
from proxy.ports import Ledger, StoreAway, StoreUnusable
from proxy.stores.migrations import Migration
from proxy.stores.postgres import ledger as postgres_ledger
from proxy.stores.postgres.ledger import PostgresLedger
from proxy.stores.sqlite import ledger as sqlite_ledger
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import ExchangeId, NanoUsd
from tests.postgres import Postgres
from tests.rows import DAY, NOON_US, counted, exact_quantile, random_rows, row

Open = Callable[..., Ledger]  # each call opens the same store anew, as another process would
STORES = ("sqlite", "postgres")
SPAN = Span(DAY - 30, DAY)


@pytest.fixture(params=STORES)
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    opened: list[Ledger] = []
    url = ""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.new_database()

    def made(**options: Any) -> Ledger:
        if request.param == "postgres":
            options.pop("busy_s", None)
            ledger: Ledger = PostgresLedger(url, **options)
        else:
            ledger = SqliteLedger(tmp_path / "data" / "ledger.sqlite3", **options)
        opened.append(ledger)
        return ledger

    yield made
    for ledger in opened:
        await ledger.close()


@pytest.fixture
async def ledger(open_store: Open) -> Ledger:
    return open_store()


async def _booked(ledger: Ledger) -> list[LedgerRow]:
    return [one.row for one in await ledger.booked(0, 10_000)]


async def test_a_row_is_read_as_it_was_written(ledger: Ledger) -> None:
    full = row(
        1,
        code="upstream_error",
        fell_back=True,
        estimated=True,
        cache_write_tokens=7,
        saved_nanousd=9,
        tags=(("team", "search"), ("sum", "a=b")),
    )
    bare = LedgerRow(
        id=ExchangeId("req_2"), started_us=1, ended_us=2, account=full.account, api="chat", outcome="refused"
    )
    assert await ledger.write([full, bare]) == 2
    assert await ledger.row(full.id) == full
    assert await ledger.row(bare.id) == bare
    assert await ledger.row("req_unknown") is None


async def test_a_row_is_found_by_its_own_id_before_a_request_id(ledger: Ledger) -> None:
    """A client may choose the id of another's row as its request id, and the same one again and again."""
    own, chosen, again = row(1), row(2, request_id="req_000001"), row(3, request_id="mine")
    await ledger.write([own, chosen, replace(again, id=ExchangeId("req_9")), again])
    assert await ledger.row("req_000001") == own
    assert await ledger.row("req_000002") == chosen
    assert await ledger.row("mine") == again, "the latest"
    assert await ledger.row("") is None


async def test_s13_a_row_of_another_account_is_not_found(ledger: Ledger) -> None:
    own, others = row(1, account="acme", request_id="mine"), row(2, account="bravo", request_id="mine")
    await ledger.write([own, others])
    assert await ledger.row("mine") == others
    assert await ledger.row("mine", "acme") == own
    assert await ledger.row(own.id, "acme") == own
    for account in ("bravo", "", "ACME", "acme\0", "' OR ''='"):
        assert await ledger.row(own.id, account) is None


async def test_a_row_delivered_twice_counts_once(ledger: Ledger) -> None:
    rows = [row(number) for number in range(10)]
    assert await ledger.write(rows[:6]) == 6
    before = await ledger.summary(SPAN)
    assert await ledger.write(rows[:6]) == 0
    assert await ledger.summary(SPAN) == before
    assert await ledger.write([*rows[3:], *rows[3:], rows[9]]) == 4
    assert await ledger.write([]) == 0
    assert (await ledger.summary(SPAN)).total.calls == 10
    assert sorted(one.id for one in await _booked(ledger)) == [one.id for one in rows]


async def test_the_first_delivery_of_an_id_stands(ledger: Ledger) -> None:
    first = row(1)
    await ledger.write([first, replace(first, cost_nanousd=NanoUsd(1))])
    await ledger.write([replace(first, outcome="interrupted")])
    assert await ledger.row(first.id) == first
    assert (await ledger.summary(SPAN)).total.cost_nanousd == first.cost_nanousd


LONG = "🙂" * 5000
HOSTILE = [
    row(1, model="nul\0inside", code="\0", tags=(("a\0", "b\0"), ("c\n", "d\ne=f"))),
    row(2, model="lone \ud800 surrogate", account="acme\udfff", tags=(("\ud83d", "\ude00"),)),
    row(
        3,
        model=LONG,
        route="é" * 5000,
        account=LONG,
        virtual_key=LONG,
        tags=(("🙂" * 500, "🙂" * 500),),
    ),
    row(
        4, input_tokens=10**30, cost_nanousd=2**63, output_tokens=-5, total_ms=float("nan"), first_event_ms=float("inf")
    ),
    row(5, input_tokens=10**30, cost_nanousd=2**63, total_ms=1e308, started_us=10**30),
    row(6, tags=tuple((f"t{number}", "v") for number in range(100)), model="'; DROP TABLE ledger; --"),
    row(7, route="$1", provider=":id", model='{"a":"\\u0000"}', code="\\x00", tags=(("%s", "?"),)),
    row(8, api="chat\r\n", outcome="odd", cost_source="odd", cache="odd"),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda one: one.id)
async def test_no_value_breaks_the_store(ledger: Ledger, hostile: LedgerRow) -> None:
    assert await ledger.write([row(100), hostile, row(101)]) == 3
    stored = await ledger.row(hostile.id)
    assert stored is not None
    assert await ledger.write([stored, hostile]) == 0
    for text in (
        stored.account,
        stored.model,
        stored.route,
        stored.code,
        *(part for tag in stored.tags for part in tag),
    ):
        assert text is None or ("\0" not in text and text.encode())
    assert len(stored.account) <= NAME_CHARS_MAX
    assert 0 <= stored.cost_nanousd <= COUNT_MAX
    await ledger.page(LedgerFilter(model=hostile.model, account=hostile.account, code=hostile.code), 10)
    page = await ledger.page(LedgerFilter(model=stored.model, account=stored.account), 10)
    assert stored in page.rows
    everything = await ledger.summary(Span(0, 10**6))
    assert everything.total.calls == 3


_TAGS = st.lists(st.tuples(st.text(max_size=80), st.text(max_size=150)), max_size=10)


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(max_size=200), min_size=6, max_size=6),
    numbers=st.lists(st.integers(-(2**70), 2**70), min_size=4, max_size=4),
    more=st.tuples(st.floats(), _TAGS),
)
async def test_any_row_can_be_written_and_read(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, texts: list[str], numbers: list[int], more: Any
) -> None:
    hostile = row(
        1,
        account=texts[0],
        virtual_key=texts[1],
        route=texts[2],
        provider=texts[3],
        model=texts[4],
        code=texts[5],
        input_tokens=numbers[0],
        cost_nanousd=numbers[1],
        started_us=numbers[2],
        baseline_nanousd=numbers[3],
        total_ms=more[0],
        tags=tuple(more[1]),
    )
    read = []
    for ledger in (
        SqliteLedger(tmp_path_factory.mktemp("any") / "ledger.sqlite3"),
        PostgresLedger(await postgres.new_database()),
    ):
        assert await ledger.write([hostile]) == 1
        read.append((await ledger.row(hostile.id), await ledger.summary(Span(0, 10**9))))
        await ledger.close()
    assert read[0] == read[1]


async def test_pages_go_from_the_newest_to_the_oldest_and_miss_none(ledger: Ledger) -> None:
    rows = [row(number, started_us=NOON_US + number // 3) for number in range(25)]  # three of a time
    random.Random(1).shuffle(rows)
    await ledger.write(rows)
    seen: list[LedgerRow] = []
    cursor: Cursor | None = None
    for _ in range(5):
        page = await ledger.page(LedgerFilter(), 6, cursor)
        seen += page.rows
        cursor = page.after
    assert cursor is None
    assert seen == sorted(rows, key=lambda one: (one.started_us, one.id), reverse=True)


FILTERS: list[tuple[LedgerFilter, Callable[[LedgerRow], bool]]] = [
    (LedgerFilter(account="acme"), lambda one: one.account == "acme"),
    (LedgerFilter(virtual_key="vk_2"), lambda one: one.virtual_key == "vk_2"),
    (LedgerFilter(account="bravo", route="voice"), lambda one: (one.account, one.route) == ("bravo", "voice")),
    (
        LedgerFilter(provider="groq", model="gpt-oss-120b"),
        lambda one: (one.provider, one.model) == ("groq", "gpt-oss-120b"),
    ),
    (LedgerFilter(outcome="failed"), lambda one: one.outcome == "failed"),
    (LedgerFilter(status=502, code="upstream_error"), lambda one: one.status == 502),
    (LedgerFilter(tag=("team", "search")), lambda one: ("team", "search") in one.tags),
    (LedgerFilter(tag=("team", "sea")), lambda _: False),
    (LedgerFilter(account="%"), lambda _: False),
    (
        LedgerFilter(since_us=(DAY - 1) * US_PER_DAY, until_us=DAY * US_PER_DAY),
        lambda one: (DAY - 1) * US_PER_DAY <= one.started_us < DAY * US_PER_DAY,
    ),
]


async def test_filters(ledger: Ledger) -> None:
    rows = random_rows(300, random.Random(2))
    await ledger.write(rows)
    for wanted, holds in FILTERS:
        page = await ledger.page(wanted, 1000)
        assert page.after is None
        expected = {one.id for one in rows if holds(one)}
        assert {one.id for one in page.rows} == expected, wanted
        assert {one.row.id for one in await ledger.booked(0, 1000, wanted)} == expected, wanted


async def test_the_order_of_booking_can_be_followed(ledger: Ledger) -> None:
    assert await ledger.newest_seq() == 0
    for number in (5, 3, 9):
        await ledger.write([row(number)])
    first = await ledger.booked(0, 2)
    rest = await ledger.booked(first[-1].seq, 2)
    assert [one.row for one in (*first, *rest)] == [row(5), row(3), row(9)]
    assert rest[-1].seq == await ledger.newest_seq()
    assert await ledger.booked(rest[-1].seq, 2) == ()


async def test_spend_per_account_and_key_in_a_window(ledger: Ledger) -> None:
    rows = random_rows(300, random.Random(3))
    await ledger.write([*rows, row(999, account="idle", cost_nanousd=0, virtual_key="vk_idle")])
    since, until = (DAY - 1) * US_PER_DAY + 12345, DAY * US_PER_DAY + 54321
    inside = [one for one in rows if since <= one.started_us < until]
    for name in {one.account for one in rows}:
        exact = sum(one.cost_nanousd for one in inside if one.account == name)
        assert await ledger.spent("account", name, since, until) == exact
    for key in {one.virtual_key for one in rows if one.virtual_key is not None}:
        exact = sum(one.cost_nanousd for one in inside if one.virtual_key == key)
        assert await ledger.spent("virtual_key", key, since, until) == exact
    assert await ledger.spent("everybody", "", since, until) == sum(one.cost_nanousd for one in inside)
    assert await ledger.spent("account", "acme", 0, 1) == 0
    assert await ledger.spent("account", "nobody\0", since, until) == 0


async def test_a_row_is_found_by_the_id_that_its_client_chose(ledger: Ledger) -> None:
    rows = [row(number, request_id="mine") for number in (1, 2)]
    await ledger.write([*rows, row(3)])
    assert await ledger.row("mine") == rows[1]
    assert await ledger.row("req_000001") == rows[0]
    assert (await ledger.summary(Span(DAY, DAY))).total.calls == 3


def _told(measured: Measures) -> dict[str, int]:
    return {name: value for name, value in measured._asdict().items() if name in counted([])}


def _check(summary: Summary, rows: list[LedgerRow]) -> None:
    """The summary says of rows what counting them one by one says."""
    assert _told(summary.total) == counted(rows)
    values: dict[str, Callable[[LedgerRow], list[str]]] = {
        "provider": lambda one: [one.provider or ""],
        "model": lambda one: [one.model or ""],
        "route": lambda one: [one.route or ""],
        "virtual_key": lambda one: [one.virtual_key or ""],
        "tag": lambda one: [f"{name}={value}" for name, value in one.tags],
    }
    if summary.account is None:
        values["account"] = lambda one: [one.account]
    for dimension, of in values.items():
        told = {value: _told(measured) for value, measured in summary.by[dimension]}
        expected = {value for one in rows for value in of(one)}
        assert told == {value: counted(one for one in rows if value in of(one)) for value in expected}, dimension
        costs = [measured.cost_nanousd for _, measured in summary.by[dimension]]
        assert costs == sorted(costs, reverse=True)
    by_day = {day: _told(measured) for day, measured in summary.days}
    days = {one.started_us // US_PER_DAY for one in rows}
    assert by_day == {day: counted(one for one in rows if one.started_us // US_PER_DAY == day) for day in days}


async def test_the_roll_ups_say_what_the_rows_say(ledger: Ledger) -> None:
    rng = random.Random(4)
    rows = random_rows(600, rng)
    delivered = rows + rng.sample(rows, 200)
    rng.shuffle(delivered)
    while delivered:  # batches of any size, with repeats within and between them
        size = rng.randrange(1, 90)
        await ledger.write(delivered[:size])
        delivered = delivered[size:]
    _check(await ledger.summary(SPAN), rows)
    _check(await ledger.summary(SPAN, "acme"), [one for one in rows if one.account == "acme"])
    _check(
        await ledger.summary(Span(DAY, DAY)),
        [one for one in rows if one.started_us >= DAY * US_PER_DAY],
    )
    assert await ledger.days(SPAN, "acme") == (await ledger.summary(SPAN, "acme")).days
    assert (await ledger.summary(SPAN, "nobody")).total == Measures()


async def test_quantiles_are_those_of_the_rows(ledger: Ledger) -> None:
    rows = random_rows(500, random.Random(5))
    await ledger.write(rows)
    total = (await ledger.summary(SPAN)).total
    for packed, values in (
        (total.total, [one.total_ms for one in rows if one.outcome == "ok"]),
        (total.first_event, [one.first_event_ms for one in rows if one.first_event_ms is not None]),
    ):
        for share in (0.5, 0.95):
            told = histogram.quantile(packed, share)
            assert told == pytest.approx(exact_quantile(values, share), rel=0.075)


async def test_a_client_cannot_make_the_roll_ups_grow_without_end(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = {**dict.fromkeys(("provider", "route", "account", "virtual_key"), 9), "model": 3, "tag": 5}
    monkeypatch.setattr("proxy.core.rollup.VALUES_MAX", bounds)
    for first in range(0, 40, 10):
        await ledger.write([row(n, model=f"m{n}", tags=(("run", str(n)),)) for n in range(first, first + 10)])
    await ledger.write([row(50, model="m0", tags=(("run", "0"),))])  # known ones go on counting under their names
    summary = await ledger.summary(SPAN)
    models = {value: measured.calls for value, measured in summary.by["model"]}
    assert models == {"m0": 2, "m1": 1, "m2": 1, OTHER: 37}
    assert len(summary.by["tag"]) == 6
    assert sum(measured.calls for _, measured in summary.by["tag"]) == 41
    assert summary.total.calls == 41


async def test_forgetting_is_bounded_and_keeps_the_roll_ups(ledger: Ledger) -> None:
    old = [row(number, started_us=NOON_US - 100 * US_PER_DAY + number) for number in range(25)]
    young = [row(100 + number) for number in range(5)]
    await ledger.write(old + young)
    span = Span(DAY - 200, DAY)
    before = await ledger.summary(span)
    horizon = NOON_US - 90 * US_PER_DAY
    assert [await ledger.forget(horizon, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert await ledger.row(old[0].id) is None
    assert sorted(one.id for one in await _booked(ledger)) == [one.id for one in young]
    assert await ledger.summary(span) == before
    after = await ledger.write([row(200)])
    assert after == 1
    assert (await ledger.booked(0, 100))[-1].row == row(200)  # places in the order are not given out again


async def test_a_race_for_the_same_rows_counts_each_once(open_store: Open) -> None:
    rows = random_rows(400, random.Random(6))
    ledgers = [open_store() for _ in range(4)]  # started at once on a store without a schema

    async def deliver(ledger: Ledger, seed: int) -> int:
        mine = rows[:]
        random.Random(seed).shuffle(mine)
        return sum([await ledger.write(mine[first : first + 37]) for first in range(0, len(mine), 37)])

    new = await asyncio.gather(*(deliver(ledger, seed) for seed, ledger in enumerate(ledgers)))
    assert sum(new) == len(rows)
    _check(await ledgers[0].summary(SPAN), rows)


async def test_who_follows_the_order_of_booking_misses_nothing_under_load(open_store: Open) -> None:
    writers = [open_store() for _ in range(3)]
    follower = open_store()
    await follower.open()
    done = asyncio.Event()

    async def write(ledger: Ledger, number: int) -> None:
        for first in range(20):
            await ledger.write([row(number * 1000 + first * 10 + one) for one in range(10)])

    async def follow() -> list[str]:
        seen: list[str] = []
        place = 0
        while True:
            over = done.is_set()
            found = await follower.booked(place, 50)
            seen += [one.row.id for one in found]
            place = found[-1].seq if found else place
            if over and not found:
                return seen

    following = asyncio.create_task(follow())
    await asyncio.gather(*(write(ledger, number) for number, ledger in enumerate(writers)))
    done.set()
    seen = await following
    assert len(seen) == len(set(seen)) == 600


async def test_a_reader_sees_while_a_writer_writes_and_cannot_write(open_store: Open) -> None:
    await open_store().write([row(1)])
    reader = open_store(read_only=True)
    assert await reader.row(row(1).id) == row(1)
    await open_store().write([row(2)])
    assert await reader.row(row(2).id) == row(2)
    with pytest.raises(StoreUnusable, match="read-only"):
        await reader.write([row(3)])
    with pytest.raises(StoreUnusable, match="read-only"):
        await reader.forget(COUNT_MAX, 10)


async def test_a_reader_makes_nothing(open_store: Open) -> None:
    with pytest.raises(StoreUnusable, match=r"penstock serve"):
        await open_store(read_only=True).open()


SECOND = Migration(2, "0002_second", "CREATE TABLE {0}second (n BIGINT);\nALTER TABLE {0}{1} ADD COLUMN note TEXT;\n")


def _migrations(ledger: Ledger) -> tuple[Migration, ...]:
    if isinstance(ledger, PostgresLedger):
        return (*postgres_ledger.MIGRATIONS, replace(SECOND, sql=SECOND.sql.format("penstock_", "ledger")))
    return (*sqlite_ledger.MIGRATIONS, replace(SECOND, sql=SECOND.sql.format("", "ledger")))


async def test_from_version_1_to_2_with_data_and_not_back(open_store: Open) -> None:
    old = open_store()
    rows = random_rows(50, random.Random(7))
    await old.write(rows)
    await old.close()
    two = _migrations(old)
    newer = [open_store(migrations=two) for _ in range(3)]  # at once: applied once
    await asyncio.gather(*(one.open() for one in newer))
    _check(await newer[0].summary(SPAN), rows)
    assert await newer[1].write([row(1000), rows[0]]) == 1
    assert await open_store(migrations=two, read_only=True).row(row(1000).id) == row(1000)
    for behind in (open_store(), open_store(read_only=True)):
        with pytest.raises(
            StoreUnusable, match="schema version 2, and this Penstock knows 1: a newer Penstock wrote it"
        ):
            await behind.open()


async def test_a_reader_of_an_older_schema_says_what_to_do(open_store: Open) -> None:
    old = open_store()
    await old.write([row(1)])
    with pytest.raises(StoreUnusable, match="schema version 1, and this Penstock reads 2"):
        await open_store(migrations=_migrations(old), read_only=True).open()


async def test_a_migration_that_fails_leaves_nothing_behind(open_store: Open) -> None:
    old = open_store()
    await old.write([row(1)])
    first, second = _migrations(old)
    broken = replace(second, sql=second.sql + "ALTER TABLE nowhere ADD COLUMN x BIGINT;\n")
    with pytest.raises(StoreAway, match="nowhere"):
        await open_store(migrations=(first, broken)).open()
    assert await open_store().row(row(1).id) == row(1)
    await open_store(migrations=(first, second)).open()


async def test_cancelled_in_the_middle_a_write_is_whole_or_not_at_all(ledger: Ledger) -> None:
    await ledger.open()
    rows = [row(number) for number in range(300)]
    for delay_s in (0, 0.001, 0.003, 0.01):
        task = asyncio.create_task(ledger.write(rows))
        await asyncio.sleep(delay_s)
        task.cancel()
        await asyncio.wait([task])
        assert len(await _booked(ledger)) in (0, 300)
    await ledger.write(rows)
    assert (await ledger.summary(SPAN)).total.calls == 300
