"""F072, F100, F107: one instance is killed. The other serves all, and what the dead one held comes back with its leases."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.instances.conftest import HELD, WORST, World
from tests.instances.pair import Pair, ask, chat, connected, serving, until
from tests.money.held import USED_IN, USED_OUT
from tests.money.stage import IN, OUT

pytestmark = pytest.mark.asyncio(loop_scope="package")

LEASE_S = 2.0
LATE_S = 2.0  # what looks for leases that are over comes by now and then
SLOTS = 5


@pytest_asyncio.fixture(loop_scope="package")
async def mortal(world: World, tmp_path: Path) -> AsyncIterator[Pair]:
    async with serving(tmp_path / "pair", world.config, world.environ, LEASE_S) as running:
        yield running


async def test_f072_what_it_held_comes_back(mortal: Pair, world: World) -> None:
    dead, lives = mortal.both
    key, key_id = await mortal.new_key(account="rich", limits={"concurrency": SLOTS}, budgets={"daily": 100})
    clients = [await connected(dead.port, key, HELD) for _ in range(SLOTS)]
    await world.held.until_seen(SLOTS)
    assert (await lives.ask(key, HELD)).status == 429, "all slots are taken there"
    (book,) = await lives.books("rich")
    assert book["held_nanousd"] == SLOTS * WORST

    await dead.kill()
    killed_at = time.monotonic()
    for client in clients:
        assert (await client.answer()).end in ("eof", "reset"), "its clients see that it is gone"
        with suppress(ConnectionError):
            await client.close()
    world.held.go.set()
    world.held.seen.clear()

    # Connections that the balancer tries on the dead one go to the other.
    other_key, _ = await lives.new_key()  # which has no limits
    answers = await asyncio.gather(*mortal.crowd(other_key, 40, chat("sim/plain")))
    assert {(one.status, one.end) for one in answers} == {(200, "whole")}
    assert mortal.balancer.refused > 0

    async def is_free() -> bool:
        answers = await asyncio.gather(*(ask(lives.port, key, HELD) for _ in range(SLOTS)))
        return {one.status for one in answers} == {200}

    async def is_settled() -> bool:
        (book,) = await lives.books("rich")
        return bool(book["held_nanousd"] == 0)

    await until(is_free, LEASE_S + LATE_S)
    await until(is_settled, LEASE_S + LATE_S)
    assert time.monotonic() - killed_at < LEASE_S + LATE_S
    cost = USED_IN * IN + USED_OUT * OUT
    await lives.rows(f"key={key_id}&outcome=interrupted", 0)  # nobody else has its journal

    await dead.start()  # on its folder, where its journal is
    rows = await lives.rows(f"key={key_id}&outcome=interrupted", SLOTS)
    assert {(row["cost_nanousd"], row["cost_source"]) for row in rows} == {(WORST, "estimated")}
    served = await lives.admin("GET", f"/admin/ledger?limit=1000&key={key_id}&outcome=ok&provider=held")
    assert {row["cost_nanousd"] for row in served["rows"]} == {cost}
    # Books that nobody uses are not compared with the ledger for ever; they are again as soon as somebody does.
    known = len((await lives.admin("GET", "/admin/ledger?limit=1000&account=rich"))["rows"])
    assert (await dead.ask(key, HELD)).status == 200
    owed = sum(row["cost_nanousd"] for row in await lives.rows("account=rich", known + 1))

    async def is_owed() -> bool:
        books = [(await instance.books("rich"))[0] for instance in mortal.both]
        return [(book["used_nanousd"], book["held_nanousd"]) for book in books] == [(owed, 0)] * 2

    await until(is_owed, 5.0)


async def test_f107_the_leader_is_killed_before_content(mortal: Pair, world: World) -> None:
    """Who waits at the other instance has an answer as soon as the leader's lease is over; one asks for all of them."""
    dead, lives = mortal.both
    key, _ = await mortal.new_key(account="led")
    body = chat("led", stream=True)
    leader = await connected(dead.port, key, body)

    async def leads() -> bool:
        return world.asked("delay:2500ms") == 1

    await until(leads, 5.0)
    there = [await connected(dead.port, key, body) for _ in range(5)]
    waiting = [asyncio.create_task(lives.ask(key, body)) for _ in range(40)]
    await asyncio.sleep(0.3)
    assert world.asked("delay:2500ms") == 1, "they wait"
    await dead.kill()
    began = time.monotonic()
    for client in (leader, *there):
        answer = await client.answer()
        assert (answer.status, answer.end in ("eof", "reset")) == (0, True)
        with suppress(ConnectionError):
            await client.close()
    answers = await asyncio.gather(*waiting)
    assert time.monotonic() - began < LEASE_S + LATE_S + 2.5
    assert {(one.status, one.end) for one in answers} == {(200, "whole")}
    assert len({one.body for one in answers}) == 1
    assert world.asked("delay:2500ms") == 2
    rows = await lives.rows("account=led&route=led", 40)
    assert sum(row["cost_nanousd"] > 0 for row in rows) == 1

    await dead.start()  # on its folder, where its journal is
    rows = await lives.rows("account=led&route=led&outcome=interrupted", 1)
    assert rows[0]["cost_source"] == "estimated"
