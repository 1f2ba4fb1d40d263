"""A Cluster of real nodes: each command goes where its key is, and what one node does is not held against the others."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from zoneinfo import ZoneInfo

import pytest

from proxy.core.budget import PROXY, Book, BudgetLease, Claim, Settlement, account_subject
from proxy.core.window import Period, window_at
from proxy.ports import Reservation, StoreAway
from proxy.stores.redis import cluster as routing
from proxy.stores.redis import connection as module
from proxy.stores.redis.budgets import RedisBudgets
from proxy.stores.redis.cache import RedisCache
from proxy.stores.redis.connection import DEADLINE_S, RedisConnection
from proxy.stores.redis.events import RedisEvents
from proxy.stores.redis.guard import FAILURES
from proxy.stores.redis.key_news import RedisKeyNews
from proxy.terms import AccountId, CacheKey, ExchangeId, NanoUsd
from tests.cached_answers import answer
from tests.gateway import closed_port
from tests.stopwatch import Stopwatch
from tests.stores.redis.test_connection import (
    COUNT,
    ECHO,
    SLACK_S,
    away,
    connected,
    counted,
    insist,
    listening,
    outcome,
    soon,
    timed,
    unlagged,
)
from tests.valkey import Valkey, ValkeyCluster, clustered, paused

NOW_S = 1_800_000_000
COST, CAP = 7, NanoUsd(10**15)
BOOKS = tuple(
    Book(subject, window_at(Period.DAILY, ZoneInfo("UTC"), NOW_S))
    for subject in (PROXY, account_subject(AccountId("a")))
)
WORDS = [f"word {number}" for number in range(200)]


@pytest.fixture
def cluster(shared_cluster: ValkeyCluster) -> ValkeyCluster:
    shared_cluster.flush()
    return shared_cluster


@pytest.fixture(scope="module")
def replicated() -> Iterator[ValkeyCluster]:
    """Of which a replica may take over. The first slots have one."""
    with clustered(3, 1) as made:
        yield made


def key_on(cluster: ValkeyCluster, node: Valkey) -> str:
    return next(key for number in itertools.count() if cluster.master_of(key := f"key {number}") is node)


def sent_on(cluster: ValkeyCluster) -> int:
    """How many commands the nodes have answered with MOVED or ASK so far."""
    count = 0
    for node in cluster.masters:
        for line in node.command("INFO", "errorstats").splitlines():
            if line.startswith(("errorstat_MOVED", "errorstat_ASK")):
                count += int(line.rpartition("=")[2])
    return count


# Found.


async def test_everything_goes_where_its_key_is(cluster: ValkeyCluster) -> None:
    before = sent_on(cluster)
    async with connected(cluster.url) as connection:
        assert await asyncio.gather(*(connection.call("SET", word, word) for word in WORDS)) == [b"OK"] * len(WORDS)
        assert await asyncio.gather(*(connection.run(ECHO, [word], [word]) for word in WORDS)) == [
            word.encode() for word in WORDS
        ]
        assert await connection.call("PING") == b"PONG"
        assert len(await connection.call("TIME")) == 2
        assert await connection.run(ECHO, [], ["x"]) == b"x"
        assert connection.state.up
        assert connection.state.where == cluster.url
        assert connection.database == 0
    assert all(int(node.command("DBSIZE")) > len(WORDS) / 6 for node in cluster.masters)
    assert sent_on(cluster) == before


async def test_it_is_found_without_a_start_and_by_any_node_of_the_url(cluster: ValkeyCluster) -> None:
    url = f"redis+cluster://127.0.0.1:{closed_port()},localhost:{cluster.masters[2].port}"
    connection = RedisConnection(url, deadline_s=1.0)
    try:
        assert await connection.call("SET", "a", "1") == b"OK"
        assert await connection.call("GET", "a") == b"1"
    finally:
        await connection.close()


async def test_a_node_is_only_opened_when_it_is_needed(cluster: ValkeyCluster) -> None:
    async with connected(cluster.url, probe_s=10.0) as connection:
        before = [int(counted(node, "clients", "connected_clients")) for node in cluster.masters]
        for node in cluster.masters:
            await connection.call("GET", key_on(cluster, node))
        after = [int(counted(node, "clients", "connected_clients")) for node in cluster.masters]
        assert sum(after) - sum(before) == 2, "one was tried at the start"


async def test_everywhere_each_node_is_tried(cluster: ValkeyCluster) -> None:
    with paused(cluster.masters[1]):
        connection = RedisConnection(cluster.url, deadline_s=0.2)
        try:
            await connection.start(everywhere=True)
            assert not connection.state.up
            assert f"{cluster.masters[1].port}: no answer" in (connection.state.last_error or "")
        finally:
            await connection.close()


@pytest.mark.parametrize("started", [False, True])
async def test_nowhere_to_be_found(started: bool) -> None:
    connection = RedisConnection(f"redis+cluster://:s3cret-canary@127.0.0.1:{closed_port()}", probe_s=0.1)
    try:
        if started:
            await connection.start()
        spent_s, said = await timed(connection.call("GET", "a"))
        assert spent_s <= DEADLINE_S + SLACK_S
        await soon(lambda: not connection.state.up)
        for _ in range(20):
            said = await away(connection)
            assert "refused" in said
            assert "canary" not in said + repr(connection.state)
    finally:
        await connection.close()


async def test_a_server_that_is_no_cluster(valkey: Valkey) -> None:
    async with connected(f"redis+cluster://127.0.0.1:{valkey.port}") as connection:
        assert "cluster support disabled" in await away(connection)
        assert not connection.state.up


async def test_signing_in_at_every_node(cluster: ValkeyCluster) -> None:
    for node in cluster.masters:
        node.command("ACL", "SETUSER", "penstock", "on", ">s3cret-canary", "~*", "&*", "+@all")
    async with connected(cluster.url_with("penstock:s3cret-canary@")) as connection:
        for node in cluster.masters:
            assert await connection.call("SET", key_on(cluster, node), "1") == b"OK"
        assert "canary" not in repr(connection.state)
    async with connected(cluster.url_with("penstock:wr0ng-canary@")) as connection:
        assert not connection.state.up
        assert "canary" not in await away(connection) + repr(connection.state)
    for node in cluster.masters:
        node.command("ACL", "DELUSER", "penstock")


# Moved.


async def test_a_slot_that_has_moved_is_followed_once(cluster: ValkeyCluster) -> None:
    one, two = cluster.masters[:2]
    key = key_on(cluster, one)
    async with connected(cluster.url, probe_s=10.0) as connection:
        await connection.run(COUNT, [key], [])
        cluster.move(cluster.slot_of(key), two)
        two.command("SCRIPT", "FLUSH")
        before = sent_on(cluster)
        counts = [await connection.run(COUNT, [key], []) for _ in range(20)]
        assert counts == list(range(2, 22))
        assert sent_on(cluster) == before + 1
        cluster.move(cluster.slot_of(key), one)
        assert sorted(await asyncio.gather(*(connection.run(COUNT, [key], []) for _ in range(200)))) == [
            *range(22, 222)
        ]
        assert connection.state.up


async def test_asked_where_it_is_sent_for_once(cluster: ValkeyCluster) -> None:
    """ASK; and the script is not known there, so that it is asked twice, each time behind ASKING."""
    one, two = cluster.masters[:2]
    key = key_on(cluster, one)
    slot = cluster.slot_of(key)
    async with connected(cluster.url, probe_s=10.0) as connection:
        await connection.run(COUNT, [key], [])
        two.command("CLUSTER", "SETSLOT", slot, "IMPORTING", one.command("CLUSTER", "MYID"))
        one.command("CLUSTER", "SETSLOT", slot, "MIGRATING", two.command("CLUSTER", "MYID"))
        one.command("MIGRATE", "127.0.0.1", two.port, key, 0, 5000)
        two.command("SCRIPT", "FLUSH")
        before = sent_on(cluster)
        assert [await connection.run(COUNT, [key], []) for _ in range(5)] == [2, 3, 4, 5, 6]
        assert sorted(await asyncio.gather(*(connection.run(COUNT, [key], []) for _ in range(50)))) == [*range(7, 57)]
        assert sent_on(cluster) == before + 55, "the slot has not moved yet"
        # Some keys of one script here, some there: of this command alone, and nobody is away.
        missing = f"{{{key}}}none"
        for _ in range(2 * FAILURES):
            with pytest.raises(StoreAway, match="TryAgainError"):
                await connection.run(COUNT, [key, missing], [])
        assert connection.state.up
        for node in (two, one, cluster.masters[2]):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", two.command("CLUSTER", "MYID"))
        assert await connection.run(COUNT, [key], []) == 57
    cluster.move(slot, one)


async def test_sent_on_in_a_circle_is_given_up(cluster: ValkeyCluster) -> None:
    """Two nodes that send to each other, while they disagree."""
    one, two, _ = cluster.masters
    key = key_on(cluster, one)
    slot = cluster.slot_of(key)
    async with connected(cluster.url, probe_s=10.0) as connection:
        await connection.call("SET", key, "1")
        one.command("DEL", key)
        one.command("CLUSTER", "SETSLOT", slot, "NODE", two.command("CLUSTER", "MYID"))
        with pytest.raises(StoreAway, match="sends on in a circle"):
            await connection.call("GET", key)
        assert connection.state.up
        two.command("CLUSTER", "SETSLOT", slot, "NODE", two.command("CLUSTER", "MYID"))
        assert await connection.call("GET", key) is None
    cluster.move(slot, one)


# Moved under load.


class Books:
    """What was acknowledged of what many do at once; what they are told must be that and nothing else."""

    def __init__(self, connection: RedisConnection) -> None:
        self.connection = connection
        self.stopped = False
        self.done = 0
        self.wrong: list[object] = []
        self.away: list[str] = []

    async def counted(self, key: str) -> None:
        """Each number is the one after the last: nothing is done twice, and nothing that was refused is done."""
        last = 0
        while not self.stopped:
            came = await outcome(self.connection.run(COUNT, [key], []))
            if isinstance(came, StoreAway):
                self.away.append(str(came))
                await asyncio.sleep(0.001)
                continue
            self.done += 1
            if came != last + 1:
                self.wrong.append((key, last, came))
            last = came

    async def remembered(self, cache: RedisCache, key: CacheKey) -> None:
        """An answer that was taken is had; while its slot moves, or none."""
        number = 0
        while not self.stopped:
            number += 1
            with suppress(StoreAway):
                recalled = await cache.get(key)
                kept = answer(generation=recalled.generation, body=f"{key} {number}".encode())
                if not await cache.put(key, kept):
                    self.wrong.append((key, "not taken"))
                    continue
                held = (await cache.get(key)).answer
                if held is None or held.body != kept.body:
                    self.wrong.append((key, number, held))
                self.done += 1
            await asyncio.sleep(0.001)

    async def spent(self, budgets: RedisBudgets, books: tuple[Book, ...], name: str) -> int:
        """How much was reserved and settled, asked again as long as the store is away: what comes twice counts once."""
        for number in itertools.count():
            if self.stopped:
                return number * COST
            exchange = ExchangeId(f"{name} {number}")
            lease = BudgetLease(exchange, tuple(Claim(book, CAP) for book in books), NanoUsd(2 * COST), NOW_S * 1000)
            while not isinstance(came := await outcome(budgets.reserve(lease, "w")), Reservation):
                self.noted(came)
                await asyncio.sleep(0.001)
            while isinstance(
                came := await outcome(budgets.settle([Settlement(exchange, books, NanoUsd(COST))])), StoreAway
            ):
                self.noted(came)
                await asyncio.sleep(0.001)
            self.done += 1
        raise AssertionError

    def noted(self, came: object) -> None:
        (self.away if isinstance(came, StoreAway) else self.wrong).append(str(came))


@pytest.mark.parametrize("how", ["key by key", "at once"])
async def test_a_slot_that_moves_under_load(cluster: ValkeyCluster, how: str) -> None:
    """0 wrong answers, and no errors but that the store is away for keys that are neither here nor there."""
    async with connected(cluster.url, deadline_s=5.0) as connection:
        budgets, cache, books = RedisBudgets(connection), RedisCache(connection), Books(connection)
        for book in BOOKS:
            await budgets.seed(book, NanoUsd(0), NOW_S * 1000)
        work = [asyncio.create_task(books.counted(f"{{moving}} {number}")) for number in range(20)]
        work += [asyncio.create_task(books.remembered(cache, CacheKey(f"v1:{number}"))) for number in range(5)]
        spending = [asyncio.create_task(books.spent(budgets, BOOKS, f"{number}")) for number in range(5)]
        for key in ("{moving}", connection.key("{cache}"), connection.key("budgets")):
            slot = cluster.slot_of(key)
            target = next(node for node in cluster.masters if node is not cluster.owner(slot))
            await more(books)
            if how == "at once":
                await asyncio.to_thread(cluster.move_at_once, slot, target)
            else:
                await asyncio.to_thread(cluster.move, slot, target, 0.02)
            await more(books)
        books.stopped = True
        await asyncio.gather(*work)
        spent = sum(await asyncio.gather(*spending))
        standings = await budgets.look(BOOKS)
        assert {(one.spent_nanousd, one.held_nanousd) for one in standings.values()} == {(spent, 0)}
        assert books.wrong == []
        assert all(one.startswith("TryAgainError: ") for one in books.away)
        assert connection.state.up
        print(f"{how}: {len(books.away)} times away")


async def more(books: Books) -> None:
    before = books.done
    await soon(lambda: books.done > before + 100, 10)


# Away.


async def test_a_hung_node_is_away_alone(cluster: ValkeyCluster) -> None:
    """F080, for its slots; the others' are served as if nothing were."""
    hung, well, _ = cluster.masters
    its, other = key_on(cluster, hung), key_on(cluster, well)
    told: list[bool] = []
    async with connected(cluster.url, deadline_s=DEADLINE_S, told=lambda state: told.append(state.up)) as connection:
        for key in (its, other):
            await insist(connection, "SET", key, "1")
        await soon(lambda: connection.state.up)
        told.clear()
        opened, watch = int(counted(hung, "stats", "total_connections_received")), Stopwatch()
        with paused(hung):
            for _ in range(FAILURES):
                came, took_s = await unlagged(connection.call("GET", its))
                assert isinstance(came, StoreAway)
                assert took_s <= 0.025
            assert not connection.state.up
            assert f"{hung.port}: no answer within 10 ms" in (connection.state.last_error or "")
            served = 0
            for _ in range(200):
                if served == 50:
                    break
                came, took_s = await unlagged(connection.call("GET", its))
                assert isinstance(came, StoreAway)
                assert f":{hung.port}" in str(came)
                assert took_s < 0.001
                served += await outcome(connection.call("GET", other)) == b"1"
            assert served == 50
            assert told == [False]
            probes_max = watch.spent_s / 0.1 + 1
        # One for each failure until it was away, this test's own, and one look at the Cluster before that.
        opened = int(counted(hung, "stats", "total_connections_received")) - opened
        assert opened <= FAILURES + probes_max + 2
        assert await insist(connection, "GET", its) == b"1"
        assert told[:2] == [False, True]


@pytest.mark.parametrize("how", ["hung", "killed"])
async def test_a_replica_takes_over(replicated: ValkeyCluster, how: str) -> None:
    lost = replicated.owner(0)
    (replica,) = {replicated.masters[0], replicated.replicas[0]} - {lost}
    await soon(lambda: "master_link_status:up" in replica.command("INFO", "replication"), 10)
    others = replicated.masters[1:]
    lost.flush()
    its, *theirs = keys = [key_on(replicated, node) for node in (lost, *others)]
    async with connected(replicated.url, deadline_s=0.2) as connection:
        for key in keys:
            await connection.call("DEL", key)
            assert await connection.run(COUNT, [key], []) == 1
        lost.command("WAIT", 1, 5000)
        async with listening(connection, its) as heard:
            (lost.stop if how == "killed" else lost.pause)()
            try:
                while connection.state.up:
                    await away(connection, "GET", its)
                assert [await connection.run(COUNT, [key], []) for key in theirs] == [2, 2]
                replica.command("CLUSTER", "FAILOVER", "TAKEOVER")
                watch = Stopwatch()
                async with asyncio.timeout(10):
                    while isinstance(came := await outcome(connection.run(COUNT, [its], [])), StoreAway):
                        await asyncio.sleep(0.01)
                assert came == 2
                print(f"{how}: back after {watch.spent_s:.2f} s")
                await soon(lambda: connection.state.up)
                if how == "killed":
                    assert await asyncio.wait_for(heard.get(), 10) is None
                    await connection.call("PUBLISH", its, "two")
                    assert await asyncio.wait_for(heard.get(), 5) == b"two"
            finally:
                (lost.start if how == "killed" else lost.resume)()
            assert [await connection.run(COUNT, [key], []) for key in keys] == [3, 3, 3]
        assert connection.state.up


async def test_a_slot_that_nobody_has(cluster: ValkeyCluster) -> None:
    """CLUSTERDOWN, as long as all must be there; then what nobody has cannot be had, and the rest can."""
    owner = cluster.masters[0]
    key, other = key_on(cluster, owner), key_on(cluster, cluster.masters[1])
    slot = cluster.slot_of(key)
    async with connected(cluster.url, deadline_s=1.0) as connection:
        await connection.call("SET", other, "1")
        for node in cluster.masters:
            node.command("CLUSTER", "DELSLOTS", slot)
        try:
            await soon(lambda: "cluster_state:fail" in cluster.masters[1].command("CLUSTER", "INFO"))
            for _ in range(FAILURES):
                assert "ClusterDownError" in await away(connection, "GET", other)
            assert not connection.state.up
            for node in cluster.masters:
                node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
            async with asyncio.timeout(10):
                while await outcome(connection.call("GET", other)) != b"1":
                    await asyncio.sleep(0.01)
            said = await away(connection, "GET", key)
            assert f"{slot}" in said
            assert not connection.state.up
        finally:
            owner.command("CLUSTER", "ADDSLOTS", slot)
            for node in cluster.masters:
                node.command("CONFIG", "SET", "cluster-require-full-coverage", "yes")
            cluster.settle()
        assert await insist(connection, "SET", key, "1") == b"OK"
        await soon(lambda: connection.state.up)


async def test_a_loop_that_stood_still_is_not_a_cluster_that_hangs(cluster: ValkeyCluster) -> None:
    async with connected(cluster.url, deadline_s=DEADLINE_S, probe_s=1.0) as connection:
        keys = [key_on(cluster, node) for node in cluster.masters]
        for key in keys:
            await insist(connection, "GET", key)
        for _ in range(5):
            waiting = [asyncio.create_task(connection.call("GET", key)) for key in keys * 5]
            await asyncio.sleep(0)
            time.sleep(0.1)
            assert await asyncio.gather(*waiting) == [None] * 15
        assert connection.state.up


# Channels.


async def test_news_reach_all_whatever_node_they_are_told_at(cluster: ValkeyCluster) -> None:
    async with connected(cluster.url) as here, connected(cluster.url) as there:
        heard: list[bytes | None] = []
        told: list[None] = []
        listeners = [
            asyncio.create_task(RedisEvents(there).listen(heard.append)),
            asyncio.create_task(RedisKeyNews(there).listen(lambda: told.append(None))),
        ]
        await soon(lambda: heard and told)
        for number in range(20):
            await RedisEvents(here).publish(b"%d" % number)
            await RedisKeyNews(here).tell()
        # By whichever node, they are told by all.
        for node in cluster.masters:
            node.command("PUBLISH", here.key("events"), f"by {node.port}")
        await soon(lambda: len(heard) == 24 and len(told) == 21)
        assert sorted(heard[1:], key=str) == sorted(
            [*(b"%d" % number for number in range(20)), *(f"by {node.port}".encode() for node in cluster.masters)],
            key=str,
        )
        for one in listeners:
            one.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)


async def test_a_channel_is_heard_where_its_slot_has_moved(
    cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at a node that may be on its way out of the Cluster, though a command without a key is not sent on."""
    monkeypatch.setattr(routing, "AGAIN_S", 0.0)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    one, two = cluster.masters[:2]
    channel = key_on(cluster, one)
    async with connected(cluster.url) as connection, listening(connection, channel) as heard:
        cluster.move(cluster.slot_of(channel), two)
        await connection.call("PUBLISH", channel, "before")
        await soon(lambda: two.command("PUBSUB", "NUMSUB", channel) == [channel, 1])
        await soon(lambda: heard.qsize() == 2)
        assert [heard.get_nowait(), heard.get_nowait()] == [b"before", None]
        cluster.move(cluster.slot_of(channel), one)
