"""F072, F094, F095: serving processes that are killed at any moment, and books that know of every request all the same."""

import asyncio
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from proxy.core.ledger import LedgerRow
from proxy.phases import budget_audit, budgets
from tests.conftest import Start
from tests.gateway import CHAT, Connection
from tests.money.held import USED_IN, USED_OUT, Held
from tests.money.process import short_leases
from tests.money.stage import IN, OUT, PLENTY, PRICE, budget, standings, stores_of
from tests.postgres import Postgres
from tests.valkey import Valkey

COST = USED_IN * IN + USED_OUT * OUT
LEASE_S = 1.0
START_S = 60.0
CLIENTS = 8


def config(url: str) -> str:
    return f"""
providers: {{p: {{like: vllm, base_url: "{url}", price: {{"*": {PRICE}}}}}}}
defaults: {{timeouts: {{first_event: 30s, total: 30s}}, retry: {{attempts: 1}}}}
"""


def body(user: str, *, stream: bool) -> bytes:
    return orjson.dumps({"model": "p/m", "max_tokens": 50, "messages": [], "user": user, "stream": stream})


@dataclass
class World:
    """Where the processes live. ``environ``: their stores."""

    config: Path
    environ: dict[str, str]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
        """A process and its port. It is killed by its number, whatever happens."""
        served = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.money.process", str(self.config), str(PLENTY), str(LEASE_S)),
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **self.environ},
        )
        assert served.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                while (line := await served.stdout.readline()) and b"serves on" not in line:
                    continue
            found = re.search(rb":(\d+)/v1", line)
            assert found, "it did not start"
            draining = asyncio.create_task(served.stdout.read())
            yield served, int(found.group(1))
        finally:
            with suppress(ProcessLookupError):
                served.kill()
            await served.wait()
        await draining


@dataclass
class Load:
    """Clients that ask one process after another, and remember what they were answered."""

    port: int = 0
    asked: int = 0
    answered: set[str] = field(default_factory=set)
    broken: int = 0
    over: bool = False

    async def client(self, rng: random.Random) -> None:
        while not self.over:
            self.asked += 1
            user = f"load-{self.asked}"
            try:
                connection = await Connection.open(self.port)
            except ConnectionError:
                await asyncio.sleep(0.01)
                continue
            connection.post(CHAT, body(user, stream=rng.random() < 0.5), {"x-request-id": user})
            answer = await connection.answer()
            if answer.end == "whole" and answer.status == 200:
                self.answered.add(user)
            else:
                self.broken += 1
            with suppress(ConnectionError):
                await connection.close()


def check(rows: list[LedgerRow], seen: list[str], load: Load) -> None:
    booked = Counter(row.request_id for row in rows)
    assert [user for user in seen if not booked[user]] == [], "the provider was asked, and no book knows of it"
    assert [user for user in load.answered if not booked[user]] == [], "a client was answered, and no book knows of it"
    assert [user for user, count in booked.items() if count > 1] == [], "doubled"
    outcomes = {row.request_id: row.outcome for row in rows}
    assert {outcomes[user] for user in load.answered} <= {"ok", "interrupted"}
    for row in rows:
        if row.outcome == "interrupted":
            assert (row.cost_source, row.cost_nanousd > COST) == ("estimated", True), "at its worst case"
        elif row.outcome == "ok":
            assert row.cost_nanousd == COST


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.soak)])
async def test_f095_killed_at_random_under_load(
    kills: int, store: str, start: Start, held: Held, request: pytest.FixtureRequest
) -> None:
    """Two at a time, on one data folder: one serves, the next one starts and delivers what the last one left."""
    held.go.set()
    tmp_path: Path = request.getfixturevalue("tmp_path")
    text = config(await held.start())
    (tmp_path / "routes.yaml").write_text(text)
    environ = {"PENSTOCK_DATA": str(tmp_path / "data")}
    database: str | None = None
    if store == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        database = environ["DATABASE_URL"] = await server.new_database()
    world = World(tmp_path / "routes.yaml", environ)
    rng, load = random.Random(95), Load()
    clients: list[asyncio.Task[None]] = []
    for number in range(1, kills + 1):
        async with world.serving() as (_, port):
            load.port = port
            clients = clients or [asyncio.create_task(load.client(rng)) for _ in range(CLIENTS)]
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            async with asyncio.timeout(60):  # at random, but not before there was any load
                while len(load.answered) <= 10 * number:
                    await asyncio.sleep(0.01)
    load.over = True
    await asyncio.gather(*clients)
    assert len(load.answered) > 10 * kills

    heir = await start(text, change=budget(), data=tmp_path / "data", database_url=database)
    rows: list[LedgerRow] = []
    async with asyncio.timeout(20):
        while any((tmp_path / "data" / "journal").glob("*/lock")) and len(_living(tmp_path)) > 1:
            await asyncio.sleep(0.05)
    rows = [one.row for one in await stores_of(heir).ledger.booked(0, 100_000)]
    check(rows, held.seen, load)
    assert {*(await standings(heir))} == {(sum(row.cost_nanousd for row in rows), 0)}


def _living(tmp_path: Path) -> list[Path]:
    return [folder for folder in (tmp_path / "data" / "journal").iterdir() if folder.is_dir()]


async def test_f072_what_a_dead_process_held_returns_and_its_requests_are_booked(
    tmp_path: Path, start: Start, held: Held, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Valkey, beside a process that lives: held until the lease is over, then booked at the worst case, once."""
    short_leases(LEASE_S, monkeypatch.setattr)
    # Several audits pass before the lease is over.
    for name, seconds in (("LOOK_EVERY_S", 0.05), ("AUDIT_SOON_S", 0.1), ("AUDIT_EVERY_S", 0.2)):
        monkeypatch.setattr(budget_audit, name, seconds)
    monkeypatch.setattr(budgets, "AUDIT_SOON_S", 0.1)
    text = config(await held.start())
    (tmp_path / "routes.yaml").write_text(text)
    environ = {"PENSTOCK_DATA": str(tmp_path / "data"), "REDIS_URL": valkey.url}
    lives = await start(text, change=budget(), data=tmp_path / "data", redis_url=valkey.url)
    async with World(tmp_path / "routes.yaml", environ).serving() as (_, port):
        load = Load(port)
        clients = [asyncio.create_task(load.client(random.Random(number))) for number in range(20)]
        await held.until_seen(20)
        load.over = True
        spent, kept = (await standings(lives))[0]
        assert (spent, kept > 20 * COST) == (0, True)
        killed_at = time.monotonic()
    await asyncio.gather(*clients)
    assert (load.broken, load.answered) == (20, set()), "its clients see that it is gone"
    held.go.set()
    connection = await Connection.open(lives.port)
    connection.post(CHAT, body("after", stream=False), {"x-request-id": "after"})
    assert (await connection.answer()).status == 200
    await connection.close()
    async with asyncio.timeout(LEASE_S * 3 + 3):
        while any(kept for _, kept in await standings(lives)):
            await asyncio.sleep(0.05)
    assert time.monotonic() - killed_at < LEASE_S + 2
    rows = await lives.booked(21)
    check(rows, held.seen, load)
    assert Counter(row.outcome for row in rows) == {"interrupted": 20, "ok": 1}
    owed = sum(row.cost_nanousd for row in rows)
    async with asyncio.timeout(6):
        while {*(await standings(lives))} != {(owed, 0)}:
            await asyncio.sleep(0.05)
    assert owed == kept + COST, "what was held is what is booked"
