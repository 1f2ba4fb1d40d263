"""Fault matrix F, through the gateway: the ledger's store is away, the disk is full, and nothing is lost."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from proxy.phases import budgets as budgets_module
from proxy.ports import ExchangeLog
from proxy.server import build
from proxy.server.journal import Journal
from tests.conftest import Start
from tests.gateway import CHAT, Gateway, get, send
from tests.money.held import USED_IN, USED_OUT, Held
from tests.money.stage import IN, OUT, PRICE, agree, budget, stores_of
from tests.postgres import Postgres
from tests.server.disks import FullDisk

COST = USED_IN * IN + USED_OUT * OUT
BODY = orjson.dumps({"model": "p/m", "max_tokens": 50, "messages": []})


def config(url: str) -> str:
    return f'providers: {{p: {{like: vllm, base_url: "{url}", price: {{"*": {PRICE}}}}}}}'


async def ask(gateway: Gateway, count: int) -> list[int]:
    return [(await send(gateway.port, CHAT, BODY)).status for _ in range(count)]


async def test_f090_sqlite_locked_by_somebody_else(start: Start, held: Held) -> None:
    held.go.set()
    gateway = await start(config(await held.start()), change=budget())
    assert await ask(gateway, 3) == [200] * 3
    await agree(gateway, 3)
    other = sqlite3.connect(gateway.data / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert await ask(gateway, 20) == [200] * 20
    await asyncio.sleep(0.5)
    assert stores_of(gateway).outbox.state().waiting_rows == 20
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(12):
        while stores_of(gateway).outbox.state().waiting_rows:
            await asyncio.sleep(0.05)
    rows = await agree(gateway, 23)
    assert {row.cost_nanousd for row in rows} == {COST}


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.remove()


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_f090_postgres_stopped_and_started_under_load(
    own_postgres: Postgres, start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long the first ones wait until the books are counted is another test's subject.
    monkeypatch.setattr(budgets_module, "SEED_TURNS", 2000)
    held.go.set()
    address = await own_postgres.new_database()
    gateway = await start(config(await held.start()), change=budget(), database_url=address)
    asked = 0
    over = asyncio.Event()

    async def client() -> None:
        nonlocal asked
        while not over.is_set():
            assert (await send(gateway.port, CHAT, BODY)).status == 200
            asked += 1
            await asyncio.sleep(0.01)

    clients = [asyncio.create_task(client()) for _ in range(4)]
    await _until(lambda: asked > 20)
    await asyncio.to_thread(own_postgres.stop)
    before = asked
    await _until(lambda: asked > before + 20)  # answers keep flowing
    await _until(lambda: stores_of(gateway).outbox.state().state == "behind")
    assert stores_of(gateway).outbox.state().waiting_rows > 0
    await asyncio.to_thread(own_postgres.start)
    over.set()
    await asyncio.gather(*clients)
    async with asyncio.timeout(15):
        while stores_of(gateway).outbox.state().waiting_rows:
            await asyncio.sleep(0.05)
    rows = await agree(gateway, asked)
    assert {row.cost_nanousd for row in rows} == {COST}


async def test_f092_a_full_disk_refuses_what_is_new_and_loses_nothing(
    start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk()

    def journal(root: Path, log: ExchangeLog) -> Journal:
        return Journal(root, log, disk=disk)

    monkeypatch.setattr(build, "Journal", journal)
    gateway = await start(config(await held.start()), change=budget())
    running = [asyncio.create_task(send(gateway.port, CHAT, BODY)) for _ in range(10)]
    await held.until_seen(10)
    disk.room = 100  # not enough for a row
    held.go.set()
    assert [one.status for one in await asyncio.gather(*running)] == [200] * 10
    ready = await get(gateway.port, "/health/ready")
    assert (ready.status, ready.json()["status"]) == (503, "refusing")
    refused = await send(gateway.port, CHAT, BODY)
    assert (refused.status, refused.error["code"], refused.headers["x-should-retry"]) == (503, "overloaded", "true")
    assert (await get(gateway.port, "/health/live")).status == 200
    assert len(held.seen) == 10
    disk.room = None
    async with asyncio.timeout(5):
        while (await get(gateway.port, "/health/ready")).status != 200:
            await asyncio.sleep(0.05)
    assert (await send(gateway.port, CHAT, BODY)).status == 200
    rows = await agree(gateway, 11)
    assert {(row.outcome, row.cost_nanousd) for row in rows} == {("ok", COST)}


async def test_f092_the_disk_is_found_full_when_an_attempt_is_written_down(
    start: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent that is not written down; what was held is given back."""
    disk = FullDisk()
    monkeypatch.setattr(build, "Journal", lambda root, log: Journal(root, log, disk=disk))
    gateway = await start(config(await held.start()), change=budget())
    disk.room = 0
    got = await send(gateway.port, CHAT, BODY)
    assert (got.status, got.error["code"]) == (503, "overloaded")
    assert held.seen == []
    disk.room = None
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.code, row.attempts, row.cost_nanousd) == ("failed", "overloaded", 0, 0)
