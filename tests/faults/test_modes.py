"""A store goes away and comes back under traffic: `/health` and the metrics say of each function how it works meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.core.store_mode import CAUSES, TABLE, Function, Mode, Store
from proxy.server import build
from proxy.server.journal import Journal
from tests.conftest import Start
from tests.edge.doorway import KEY, ask
from tests.gateway import Gateway, get
from tests.postgres import Postgres
from tests.server.disks import FullDisk
from tests.valkey import Valkey

CONFIG: Final = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1, output: 2}}}}}}}}
routes: {{general: {{tiers: [sim/m], cache: {{ttl: 1h}}}}}}
limits: {{rps: 1000, burst: 5000}}
budgets: {{daily: 1000, timezone: UTC, when_away: {when_away}}}
"""
OTHER: Final = [{"role": "user", "content": "another question, which the cache does not have"}]
SEEN_S: Final = 10.0
CLIENTS: Final = 3
PEPPER: Final = "a-pepper-of-the-tests-Zq8vT1nB6yKd4wXs9LpRf2J"
STORES: Final = {"redis": Store.REDIS, "postgres": Store.DATABASE}


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


async def to(thread: ThreadPoolExecutor, work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(thread, work)


async def functions(gateway: Gateway) -> dict[str, dict[str, Any]]:
    told = await get(gateway.port, "/health")
    assert told.status == 200, "no store is a reason to take traffic away"
    found: dict[str, dict[str, Any]] = told.json()["functions"]
    return found


async def metric(gateway: Gateway) -> dict[str, str]:
    """Of each function the one mode that is 1."""
    page = await ask(gateway.port, "/metrics", {"x-api-key": KEY})
    families = {one.name: one for one in text_string_to_metric_families(page.body.decode())}
    samples = families["penstock_store_mode"].samples
    assert {(one.labels["function"], one.labels["mode"]) for one in samples} == {
        (function.value, mode.value) for function, row in TABLE.items() for mode in row.modes
    }
    found = [(one.labels["function"], one.labels["mode"]) for one in samples if one.value == 1]
    assert len(found) == len(TABLE)
    return dict(found)


@asynccontextmanager
async def traffic(gateway: Gateway) -> AsyncIterator[list[int]]:
    """Clients that ask one thing after another, some of it the same; what they were answered."""
    statuses: list[int] = []

    async def client(number: int) -> None:
        while True:
            asked = [{"role": "user", "content": f"{number} {len(statuses) // 2}"}]  # some are hits, most are not
            statuses.append((await gateway.ask("general", messages=asked)).status)
            await asyncio.sleep(0.01)

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    try:
        yield statuses
    finally:
        for one in clients:
            one.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def become(gateway: Gateway, wanted: dict[str, str]) -> dict[str, float]:
    """Wait until each function is in its mode, as both say; how long each took."""
    began, took = time.monotonic(), dict[str, float]()
    while True:
        told = await functions(gateway)
        for name, one in told.items():
            if one["mode"] == wanted[name]:
                took.setdefault(name, time.monotonic() - began)
        if {name: one["mode"] for name, one in told.items()} == wanted == await metric(gateway):
            return took
        assert time.monotonic() - began <= SEEN_S, told
        await asyncio.sleep(0.05)


def modes(away: Store | None, **other: Mode) -> dict[str, str]:
    """What every function is to be in while one store is away."""
    return {
        function.value: other.get(function.value, row.away if row.store is away else Mode.SHARED).value
        for function, row in TABLE.items()
    }


@pytest.mark.parametrize("how", ["stopped", "frozen"])
@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_every_function_says_how_it_works_within_ten_seconds_and_when_it_is_back(
    store: str,
    how: str,
    *,
    start: Start,
    upstream_url: str,
    own_valkey: Valkey,
    own_postgres: Postgres,
    thread: ThreadPoolExecutor,
) -> None:
    gateway = await start(
        CONFIG.format(url=upstream_url, when_away="slice"),
        admin_key=KEY,
        redis_url=own_valkey.url,
        database_url=await own_postgres.new_database(),
        pepper=PEPPER,
    )
    server: Valkey | Postgres = own_valkey if store == "redis" else own_postgres
    go, come = (server.stop, server.start) if how == "stopped" else (server.pause, server.resume)
    async with traffic(gateway) as statuses:
        async with asyncio.timeout(SEEN_S):
            while len(statuses) < 20:  # the day's books are made from the ledger by its first request
                await asyncio.sleep(0.01)
        await become(gateway, modes(None))
        healthy = [one for one in (await functions(gateway)).values() if one["mode"] == "shared"]
        assert {(one["since"], one["why"], one["meaning"]) for one in healthy} == {(None, None, None)}
        went_at, before = time.time(), len(statuses)
        await to(thread, go)
        took = await become(gateway, modes(STORES[store]))
        told = await functions(gateway)
        for function, row in TABLE.items():
            one = told[function.value]
            if row.store is not STORES[store]:
                continue
            assert (one["store"], one["meaning"]) == (store, row.meaning)
            assert one["why"] in CAUSES
            assert one["why"] != "failed", "a cause that has a word"
            assert went_at - 0.5 <= one["since"] <= time.time()
        where = ("127.0.0.1", f":{own_valkey.port}", "PGSQL", str(own_postgres.folder), str(own_valkey.folder))
        assert [mark for mark in where if mark in str(told)] == []
        await to(thread, come)
        back = await become(gateway, modes(None))
    assert len(statuses) > before + 20
    assert set(statuses) == {200}, "answers keep flowing"
    print(f"{store} {how}: away seen in {max(took.values()):.1f} s, back in {max(back.values()):.1f} s")
    async with asyncio.timeout(SEEN_S):
        while gateway.service._stores is not None and gateway.service._stores.outbox.state().waiting_rows:
            await asyncio.sleep(0.02)
    rows = await gateway.booked(len(gateway.log.exchanges))
    assert [row.status for row in rows if row.outcome == "ok"].count(200) >= len(statuses)
    changes = [one for one in gateway.log.events if one["message"] == "mode"]
    assert {one["function"] for one in changes} >= {f.value for f, row in TABLE.items() if row.store is STORES[store]}
    assert not gateway.log.bugs


async def test_a_budget_that_closes_says_so(start: Start, upstream_url: str, own_valkey: Valkey) -> None:
    gateway = await start(CONFIG.format(url=upstream_url, when_away="closed"), redis_url=own_valkey.url, admin_key=KEY)
    assert (await gateway.ask("general")).status == 200
    own_valkey.stop()
    async with asyncio.timeout(SEEN_S):
        while (await functions(gateway))["budgets"]["mode"] == "shared":
            await gateway.ask("general", messages=OTHER)
    refused = await gateway.ask("general", messages=OTHER)
    assert (refused.status, refused.error["code"]) == (503, "budget_unavailable")
    told = (await functions(gateway))["budgets"]
    assert (told["mode"], told["meaning"]) == ("closed", TABLE[Function.BUDGETS].worst)
    own_valkey.start()
    async with asyncio.timeout(SEEN_S):
        while (await gateway.ask("general", messages=OTHER)).status != 200:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(SEEN_S):
        while (await functions(gateway))["budgets"]["mode"] != "shared":
            await asyncio.sleep(0.02)


async def test_without_redis_and_a_database_it_is_the_process_s_own(start: Start, upstream_url: str) -> None:
    gateway = await start(CONFIG.format(url=upstream_url, when_away="closed"), pepper=PEPPER)
    told = await functions(gateway)
    assert {one["mode"] for one in told.values()} == {"shared"}
    wheres = {Store.REDIS: "memory", Store.DATABASE: "sqlite"}
    assert {name: one["store"] for name, one in told.items()} == {
        function.value: wheres[row.store] for function, row in TABLE.items()
    }


async def test_a_copy_of_the_keys_that_is_too_old_says_so(
    start: Start, upstream_url: str, own_postgres: Postgres, thread: ThreadPoolExecutor
) -> None:
    gateway = await start(
        CONFIG.format(url=upstream_url, when_away="slice"),
        database_url=await own_postgres.new_database(),
        pepper=PEPPER,
    )
    assert gateway.runtime.keys is not None
    gateway.runtime.keys.stale_s = 1.0
    await to(thread, own_postgres.stop)

    async def until(mode: str, holds: Callable[[float], bool]) -> None:
        async with asyncio.timeout(SEEN_S):
            while (one := (await functions(gateway))["keys"])["mode"] != mode:
                await asyncio.sleep(0.02)
            assert holds(one["since"])

    await until("copy", lambda since: since is not None)
    await until("closed", lambda since: time.time() - since < 1)
    await to(thread, own_postgres.start)
    await until("shared", lambda since: since is None)


async def test_f092_a_full_disk_closes_the_ledger_and_says_so(
    start: Start, upstream_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk()
    monkeypatch.setattr(build, "Journal", lambda root, log: Journal(root, log, disk=disk))
    gateway = await start(CONFIG.format(url=upstream_url, when_away="slice"), admin_key=KEY, pepper=PEPPER)
    assert (await gateway.ask("general")).status == 200
    disk.room = 0
    refused = await gateway.ask("general", messages=OTHER)
    assert (refused.status, refused.error["code"]) == (503, "overloaded")
    told = (await functions(gateway))["ledger"]
    assert (told["mode"], told["why"], told["meaning"]) == ("closed", "journal full", TABLE[Function.LEDGER].worst)
    assert (await metric(gateway))["ledger"] == "closed"
    disk.room = None
    async with asyncio.timeout(SEEN_S):
        while (await functions(gateway))["ledger"]["mode"] != "shared":
            await asyncio.sleep(0.05)
    assert (await gateway.ask("general")).status == 200
