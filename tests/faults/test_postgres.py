"""Fault matrix F through the served product, on a PostgreSQL that is stopped, frozen, emptied and cut off after a COMMIT."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
import pytest

from tests.conftest import Start
from tests.edge.doorway import KEY
from tests.edge.doorway import ask as ask_admin
from tests.gateway import CHAT, Gateway, get, send
from tests.money.held import USED_IN, USED_OUT, Held
from tests.money.stage import IN, OUT, PRICE, agree, budget, stores_of
from tests.money.test_killed import World
from tests.postgres import Postgres
from tests.server.test_outbox import CutAfterCommit

COST: Final = USED_IN * IN + USED_OUT * OUT
BODY: Final = orjson.dumps({"model": "p/m", "max_tokens": 50, "messages": []})
PEPPER: Final = "a-pepper-of-the-tests-Zq8vT1nB6yKd4wXs9LpRf2J"
LIVE_S: Final = 0.1
DELIVERED_S: Final = 15.0


@pytest.fixture(autouse=True)
def _soon(rows_at_once: None) -> None:
    return


@pytest.fixture(scope="module")
def thread() -> Iterator[ThreadPoolExecutor]:
    """Servers that are started in a thread live no longer than it does."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def own_postgres(thread: ThreadPoolExecutor) -> Iterator[Postgres]:
    """One for these tests: whoever stops it starts it again."""
    server = Postgres()
    thread.submit(server.start).result()
    yield server
    server.remove()


@pytest.fixture
async def text(held: Held) -> str:
    held.go.set()
    return f'providers: {{p: {{like: vllm, base_url: "{await held.start()}", price: {{"*": {PRICE}}}}}}}'


async def ask(gateway: Gateway, count: int) -> None:
    assert [(await send(gateway.port, CHAT, BODY)).status for _ in range(count)] == [200] * count


async def delivered(gateway: Gateway) -> float:
    began = time.monotonic()
    async with asyncio.timeout(DELIVERED_S):
        while stores_of(gateway).outbox.state().waiting_rows or stores_of(gateway).outbox.state().away_s is not None:
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def fetched(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(one) for one in await connection.fetch(statement)]
    finally:
        await connection.close()


async def in_the_database(url: str) -> tuple[int, int, int, int]:
    """Rows, different ids, what they cost, and how many calls the roll-ups count."""
    (found,) = await fetched(url, "SELECT count(*), count(DISTINCT id), sum(cost_nanousd)::BIGINT FROM penstock_ledger")
    ((calls,),) = await fetched(
        url, "SELECT sum(calls)::BIGINT FROM penstock_rollup WHERE dimension = 'all' AND account = 'default'"
    )
    return (*found, calls)


@pytest.mark.parametrize("seconds", [1.5, pytest.param(60.0, marks=pytest.mark.soak)])
@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_f090_away_under_load_nothing_is_lost_or_doubled(
    how: str, seconds: float, *, start: Start, text: str, own_postgres: Postgres, thread: ThreadPoolExecutor
) -> None:
    url = await own_postgres.new_database()
    gateway = await start(text, change=budget(), database_url=url)
    go, come = {
        "stopped": (own_postgres.stop, own_postgres.start),
        "frozen": (own_postgres.pause, own_postgres.resume),
    }[how]
    loop, over, lives = asyncio.get_running_loop(), asyncio.Event(), list[float]()
    statuses: Counter[int] = Counter()

    async def client() -> None:
        while not over.is_set():
            statuses[(await send(gateway.port, CHAT, BODY)).status] += 1
            await asyncio.sleep(0.01)

    await ask(gateway, 1)
    clients = [asyncio.create_task(client()) for _ in range(4)]
    await asyncio.sleep(0.2)
    await loop.run_in_executor(thread, go)
    before, ends = statuses[200], time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        assert (await get(gateway.port, "/health/live")).status == 200
        lives.append(time.monotonic() - began)
        assert (await get(gateway.port, "/health/ready")).status == 200, "rows wait on disk, and there is room"
        await asyncio.sleep(0.05)
    assert statuses[200] > before + 20
    assert stores_of(gateway).outbox.state().waiting_rows > 20
    await loop.run_in_executor(thread, come)
    over.set()
    await asyncio.gather(*clients)
    took = await delivered(gateway)
    assert set(statuses) == {200}
    asked = statuses[200] + 1
    await agree(gateway, asked)
    assert await in_the_database(url) == (asked, asked, asked * COST, asked)
    assert sorted(lives)[len(lives) // 2] <= LIVE_S
    print(f"{how}: {asked} rows, delivered {took:.2f} s after it was back")


async def test_f091_cut_off_after_the_commit_was_sent_there_is_one_row(
    start: Start, text: str, own_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Three times in a row the acknowledgement is lost; what was committed is there once, in rows and in roll-ups."""
    url = await own_postgres.new_database()
    folder = tmp_path_factory.mktemp("s")
    cut = CutAfterCommit(own_postgres)
    await cut.start(folder)
    gateway = await start(text, change=budget(), database_url=url.replace(str(own_postgres.folder), str(folder)))
    await ask(gateway, 1)
    await delivered(gateway)
    cut.cuts_left = 3
    await ask(gateway, 1)
    async with asyncio.timeout(DELIVERED_S):
        while cut.cut < 3:
            await asyncio.sleep(0.01)
    await delivered(gateway)
    assert await in_the_database(url) == (2, 2, 2 * COST, 2)
    await agree(gateway, 2)
    cut.cuts_left = 5
    asking = [asyncio.create_task(ask(gateway, 5)) for _ in range(8)]
    await asyncio.gather(*asking)
    await delivered(gateway)
    assert cut.cut > 3
    assert await in_the_database(url) == (42, 42, 42 * COST, 42)
    await agree(gateway, 42)
    states = [one for one in gateway.log.events if str(one["message"]).startswith("ledger: ")]
    assert {str(one["message"]).partition(",")[0] for one in states} == {"ledger: away", "ledger: back"}
    await gateway.service.stop()
    await cut.stop()


async def test_f094_killed_between_the_answer_and_the_commit(
    start: Start, text: str, own_postgres: Postgres, tmp_path: Path
) -> None:
    """`kill -9` while the database is frozen: answered, settled, and in no book yet but the journal."""
    url = await own_postgres.new_database()
    (tmp_path / "routes.yaml").write_text(text)
    world = World(tmp_path / "routes.yaml", {"PENSTOCK_DATA": str(tmp_path / "data"), "DATABASE_URL": url})
    async with world.serving() as (served, port):
        assert (await send(port, CHAT, BODY)).status == 200
        own_postgres.pause()
        try:
            answers = [await send(port, CHAT, BODY, {"x-request-id": f"late-{number}"}) for number in range(10)]
            assert {one.status for one in answers} == {200}
            served.kill()
            await served.wait()
        finally:
            own_postgres.resume()
    heir = await start(text, change=budget(), data=tmp_path / "data", database_url=url)
    rows = await agree(heir, 11)
    ends = {row.request_id: (row.outcome, row.cost_nanousd) for row in rows}
    last, cost = ends["late-9"]
    assert last == "ok" or (last == "interrupted" and cost > COST), "killed before it was settled: from its intent"
    assert {ends[f"late-{number}"] for number in range(9)} == {("ok", COST)}
    assert await in_the_database(url) == (11, 11, 10 * COST + cost, 11)


async def test_a_database_that_comes_back_empty_gets_its_schema_and_what_waits(
    start: Start,
    text: str,
    own_postgres: Postgres,
    thread: ThreadPoolExecutor,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What was in it is gone, for a backup to bring back; what waited is not, and nothing has to be restarted."""
    url = await own_postgres.new_database()
    door = tmp_path_factory.mktemp("d") / "d"
    door.symlink_to(own_postgres.folder)
    address = url.replace(str(own_postgres.folder), str(door))
    gateway = await start(text, change=budget(), database_url=address, admin_key=KEY, pepper=PEPPER)
    await ask(gateway, 3)
    await delivered(gateway)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(thread, own_postgres.stop)
    await ask(gateway, 5)
    door.unlink()
    await loop.run_in_executor(thread, own_postgres.start)
    await own_postgres.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", url)
    door.symlink_to(own_postgres.folder)
    await delivered(gateway)
    wanted = {"keys": "shared", "ledger": "shared", "audit": "closed"}
    async with asyncio.timeout(10):
        while True:
            told = (await get(gateway.port, "/health")).json()["functions"]
            if {name: told[name]["mode"] for name in wanted} == wanted:
                break
            await asyncio.sleep(0.05)
    await ask(gateway, 2)
    await delivered(gateway)
    assert await in_the_database(url) == (7, 7, 7 * COST, 7), "five that waited, and two new ones"
    assert told["audit"]["why"] == "emptied", "somebody has removed it"
    changed = await ask_admin(gateway.port, "/admin/breakers/reset", {"x-api-key": KEY}, method="POST", body=b"{}")
    assert (changed.status, changed.error["code"]) == (503, "store_unavailable")
    assert not gateway.log.bugs
