"""The guarded connection against a real server that is stopped, hung, restarted, demoted, full and slow (F079 to F088)."""

import asyncio
import gc
import hashlib
import random
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.ports import StoreAway
from proxy.stores.redis import connection as module
from proxy.stores.redis import pipe, server
from proxy.stores.redis.connection import DEADLINE_S, PROBE_S, RedisConnection, Script
from proxy.stores.redis.guard import FAILURES
from tests.between import between
from tests.gateway import closed_port
from tests.lag import Timed, watched
from tests.stopwatch import Stopwatch
from tests.valkey import BINARY, Valkey, paused, sentinels, serving

SLACK_S = 0.005  # PRODUCT: 25 ms for each of the first five operations


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    """Of all tests together it has so much to look at that one run of it outlasts three deadlines."""
    gc.disable()
    yield
    gc.enable()


@asynccontextmanager
async def connected(url: str, **options: object) -> AsyncIterator[RedisConnection]:
    """A connection that has found its server; nothing of it is left afterwards.

    Patient, so that a busy machine is not taken for a server that is away, unless the deadline is what is tested.
    """
    made = RedisConnection(url, **{"probe_s": 0.1, "deadline_s": 1.0, **options})  # type: ignore[arg-type] # handed through as they are
    await made.start()
    try:
        yield made
    finally:
        await made.close()
    assert left_over() == []


def left_over() -> list[str]:
    """The tasks of connections that are still there."""
    return [repr(task) for task in asyncio.all_tasks() if "proxy/stores/redis" in repr(task)]


async def timed(operation: Awaitable[object]) -> tuple[float, str]:
    """How long an operation took to fail, and what it said."""
    watch = Stopwatch()
    with pytest.raises(StoreAway) as caught:
        await operation
    return watch.spent_s, str(caught.value)


async def away(connection: RedisConnection, *command: str) -> str:
    """What is said when it cannot be had."""
    with pytest.raises(StoreAway) as caught:
        await connection.call(*(command or ("GET", "a")))
    return str(caught.value)


def at_once(connection: RedisConnection) -> str:
    """The same, without giving the loop a single turn: nobody waits for anything, and it is little work."""
    began = time.thread_time()
    try:
        connection.call("GET", "a").send(None)
    except StoreAway as why:
        assert time.thread_time() - began <= 0.001
        return str(why)
    raise AssertionError("it was sent")


async def soon(is_so: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.005)


async def answers(connection: RedisConnection) -> None:
    """It works again, by itself."""
    assert await insist(connection, "SET", "back", "again") == b"OK"


async def insist(connection: RedisConnection, *command: str) -> object:
    """Ask again where a busy machine was too slow for the deadline."""
    async with asyncio.timeout(5):
        while True:
            await soon(lambda: connection.state.up)
            with suppress(StoreAway):
                return await connection.call(*command)


def script(source: bytes) -> Script:
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


ECHO = script(b"return ARGV[1]")
COUNT = script(b"return redis.call('INCR', KEYS[1])")


async def outcome(operation: Awaitable[Any]) -> Any:
    """A reply, or that there is none."""
    try:
        return await operation
    except StoreAway as why:
        return why


async def unlagged(operation: Awaitable[Any]) -> tuple[Any, float]:
    """What came of it, and how long it took, less what the machine took of that."""
    async with watched() as lag:
        span = Timed(lag)
        came = await outcome(operation)
        return came, await span.stop()


def counted(valkey: Valkey, section: str, name: str) -> str:
    """What the server counts under this name, of itself."""
    lines = valkey.command("INFO", section).splitlines()
    return str(next(line for line in lines if line.startswith(f"{name}:")).partition(":")[2])


# Replies.


async def test_replies(valkey: Valkey) -> None:
    for url in (valkey.url, valkey.unix_url):
        async with connected(url) as connection:
            assert await connection.call("SET", "a", b"\x00\xff\r\n", "PX", 60_000) == b"OK"
            assert await connection.call("GET", "a") == b"\x00\xff\r\n"
            assert await connection.call("GET", "none") is None
            assert await connection.call("RPUSH", "list", 1, "b", 2.5) == 3
            assert await connection.call("LRANGE", "list", 0, -1) == [b"1", b"b", b"2.5"]
            assert connection.state.up
            valkey.flush()


async def test_everybody_gets_the_answer_to_what_they_asked(valkey: Valkey) -> None:
    words = [f"{number}" * (number % 40 + 1) for number in range(1000)]
    async with connected(valkey.url) as connection:
        before = int(counted(valkey, "stats", "total_connections_received"))
        answers = await asyncio.gather(*(connection.run(ECHO, [], [word]) for word in words))
        assert answers == [word.encode() for word in words]
        assert int(counted(valkey, "stats", "total_connections_received")) == before + 1, "the one that counts"


async def test_what_one_asks_is_done_in_that_order(valkey: Valkey) -> None:
    """The first are sent twice: the server does not know the script."""
    async with connected(valkey.url) as connection:
        valkey.send("SCRIPT", "FLUSH")
        answers = await asyncio.gather(*(connection.run(COUNT, ["k"], []) for _ in range(500)))
        assert answers == list(range(1, 501))


async def test_keys_carry_the_prefix_and_databases_are_apart(valkey: Valkey) -> None:
    async with connected(valkey.url) as zero, connected(valkey.url.replace("/0", "/3"), prefix="other") as three:
        assert (zero.key("a"), three.key("a")) == ("penstock:a", "other:a")
        assert (zero.database, three.database) == (0, 3)
        await three.call("SET", "a", "three")
        assert await zero.call("GET", "a") is None


async def test_an_error_reply_is_of_its_command_alone(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        await connection.call("SET", "a", "1")
        for number in range(20):
            assert "WRONGTYPE" in await away(connection, "LPUSH", "a", "x")
            assert await connection.call("ECHO", f"{number}") == b"%d" % number
        assert connection.state.up


async def test_a_bug_of_ours_is_not_called_the_store_s(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        with pytest.raises(TypeError, match="not NoneType"):
            await connection.call("SET", "a", None)  # type: ignore[arg-type] # that is the bug
        assert await connection.call("ECHO", "a") == b"a"


# Scripts.


async def test_scripts_survive_a_flush_under_load(valkey: Valkey) -> None:
    """F086: 0 errors, and nothing is run twice."""
    add = script(b"return redis.call('INCRBY', KEYS[1], ARGV[1])")
    async with connected(valkey.url) as connection:

        async def run(times: int) -> None:
            for _ in range(times):
                await connection.run(add, ["n"], [1])

        async def flush() -> None:
            for _ in range(40):
                await connection.call("SCRIPT", "FLUSH")
                await asyncio.sleep(0)

        await asyncio.gather(*(run(50) for _ in range(8)), flush())
        assert await connection.call("GET", "n") == b"400"


async def test_each_of_a_burst_counts_once_whoever_flushes(valkey: Valkey) -> None:
    """F086: by somebody else, in the middle of a burst."""
    answers: list[int] = []
    async with connected(valkey.url) as connection:
        for _ in range(10):
            calls = [connection.run(COUNT, ["k"], []) for _ in range(100)]
            valkey.command("SCRIPT", "FLUSH")
            answers += await asyncio.gather(*calls)
    assert sorted(answers) == list(range(1, 1001))


async def test_a_script_that_fails_is_not_the_server_s_end(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        for _ in range(10):
            with pytest.raises(StoreAway, match="boom"):
                await connection.run(script(b"return redis.error_reply('boom')"), [], [])
        assert connection.state.up


# Gone.


async def test_refused_from_the_start() -> None:
    connection = RedisConnection(f"redis://:s3cret-canary@127.0.0.1:{closed_port()}")
    try:
        for _ in range(5):
            spent_s, said = await timed(connection.call("GET", "a"))
            assert spent_s <= DEADLINE_S + SLACK_S
            assert "refused" in said
        for _ in range(50):
            assert "canary" not in at_once(connection)
        state = connection.state
        assert state.down_since is not None
        assert abs(state.down_since - time.time()) < 5
        assert "refused" in (state.last_error or "")
        assert "canary" not in repr(state)
    finally:
        await connection.close()


async def test_a_refused_connection_is_noticed_at_once() -> None:
    """F079, from the start."""
    connection = RedisConnection(f"redis://127.0.0.1:{closed_port()}")
    for _ in range(FAILURES + 5):
        came, took_s = await unlagged(connection.call("GET", "a"))
        assert isinstance(came, StoreAway)
        assert took_s < 0.005
    assert not connection.state.up
    await connection.close()


async def test_a_start_without_a_server_is_down_at_once() -> None:
    async with connected(f"redis://127.0.0.1:{closed_port()}") as connection:
        assert not connection.state.up
        at_once(connection)


async def test_stopped_and_started_again(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:
        await connection.call("SET", "a", "1")
        own_valkey.stop()
        for _ in range(5):
            spent_s, _ = await timed(connection.call("GET", "a"))
            assert spent_s <= DEADLINE_S + SLACK_S
        at_once(connection)
        own_valkey.start()
        await answers(connection)
        assert await insist(connection, "GET", "a") is None
        assert await connection.run(COUNT, ["k"], []) == 1


async def test_who_wants_to_know_is_told_once_of_each_change(own_valkey: Valkey) -> None:
    told: list[bool] = []
    own_valkey.stop()
    async with connected(own_valkey.url, told=lambda state: told.append(state.up)) as connection:
        assert told == [False]
        own_valkey.start()
        await answers(connection)
        assert told == [False, True]
        own_valkey.stop()
        for _ in range(8):
            await away(connection, "PING")
        assert told == [False, True, False]


async def test_restarted_between_two_operations_costs_none(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url) as connection:
        await asyncio.gather(*(connection.call("PING") for _ in range(8)))
        own_valkey.stop()
        own_valkey.start()
        await asyncio.sleep(0.01)  # the loop hears of the ends of its idle connections
        for _ in range(8):
            assert await connection.call("PING") == b"PONG"


# Hung.


async def test_a_loop_that_stood_still_is_not_a_server_that_hangs(valkey: Valkey) -> None:
    """Another request's JSON, say: five deadlines of all that wait pass, with their answers there to be read."""
    async with connected(valkey.url, deadline_s=DEADLINE_S, probe_s=PROBE_S) as connection:
        for _ in range(5):
            waiting = [asyncio.create_task(connection.call("PING")) for _ in range(16)]
            await asyncio.sleep(0)
            time.sleep(0.1)
            assert await asyncio.gather(*waiting) == [b"PONG"] * 16
        assert connection.state.up


async def test_hung_and_awake_again(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:
        await connection.call("SET", "a", "1")
        own_valkey.pause()
        for _ in range(5):
            spent_s, said = await timed(connection.call("GET", "a"))
            assert spent_s <= DEADLINE_S + SLACK_S
            assert said in ("no answer within 20 ms", "no answer within 10 ms")
        at_once(connection)
        own_valkey.resume()
        await answers(connection)
        assert await insist(connection, "GET", "a") == b"1"


async def test_a_hung_server_costs_a_deadline_four_halves_and_then_nothing(own_valkey: Valkey) -> None:
    """F080. What was asked may have been done: it is, when the server goes on."""
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:
        assert await insist(connection, "INCR", "k") == 1
        with paused(own_valkey):
            waits = []
            for _ in range(FAILURES):
                came, took_s = await unlagged(connection.call("INCR", "k"))
                assert isinstance(came, StoreAway)
                waits.append(took_s)
            assert waits[0] <= 0.025
            assert max(waits[1:]) <= 0.015
            assert not connection.state.up
            for _ in range(20):
                came, took_s = await unlagged(connection.call("INCR", "k"))
                assert isinstance(came, StoreAway)
                assert took_s < 0.001
        await answers(connection)
        assert await insist(connection, "GET", "k") == b"%d" % (1 + FAILURES)


async def test_while_it_hangs_only_the_probe_asks(own_valkey: Valkey) -> None:
    """One an interval, and no caller waits for it."""
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:
        await insist(connection, "GET", "a")
        with paused(own_valkey):
            while connection.state.up:
                await away(connection)
            until = time.monotonic() + 0.45
            while time.monotonic() < until:
                came, took_s = await unlagged(connection.call("GET", "a"))
                assert isinstance(came, StoreAway)
                assert took_s < 0.001
                await asyncio.sleep(0.002)
        await soon(lambda: connection.state.up)
        # Those that were sent while it stood still are done afterwards; then the one that brought it back, and the start's.
        sets = counted(own_valkey, "commandstats", "cmdstat_set")
        assert int(sets.split("calls=")[1].split(",")[0]) <= 8


async def test_a_burst_at_a_hung_server_waits_one_deadline(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:
        await insist(connection, "GET", "a")
        with paused(own_valkey):
            calls = asyncio.gather(*(outcome(connection.run(ECHO, [], ["x"])) for _ in range(300)))
            came, took_s = await unlagged(calls)
            assert took_s <= 0.025
            assert all(isinstance(one, StoreAway) for one in came)
            assert not connection.state.up


async def test_who_asks_while_others_wait_waits_no_longer(own_valkey: Valkey) -> None:
    """One after the other into the same silence: each has its own deadline, not that of a connection opened meanwhile."""
    async with connected(own_valkey.url, deadline_s=DEADLINE_S, probe_s=PROBE_S) as connection:
        await insist(connection, "GET", "a")

        async def late(number: int) -> float:
            await asyncio.sleep(number * 0.002)
            _, took_s = await unlagged(connection.call("GET", "a"))
            return took_s

        with paused(own_valkey):
            assert max(await asyncio.gather(*(late(number) for number in range(30)))) <= 0.025
            assert not connection.state.up
        await answers(connection)


async def test_nobody_waits_long_for_a_hung_server(own_valkey: Valkey) -> None:
    """F080: no request waits for more than 50 ms, however many there are and however many operations each has."""
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:

        async def request() -> float:
            watch = Stopwatch()
            for _ in range(3):
                with suppress(StoreAway):
                    await connection.call("GET", "a")
            return watch.spent_s

        own_valkey.pause()
        assert max(await asyncio.gather(*(request() for _ in range(200)))) <= 0.05
        assert not connection.state.up
        own_valkey.resume()
        await answers(connection)


async def test_a_server_that_does_not_sign_in_is_given_up(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OPEN_S", 0.05)
    own_valkey.pause()
    async with connected(own_valkey.url.replace("/0", "/1")) as connection:  # SELECT is what it waits for
        assert connection.state.last_error == "TimeoutError: no connection within 0.05 s"
        own_valkey.resume()
        await answers(connection)


async def test_one_probe_an_interval(own_valkey: Valkey) -> None:
    assert PROBE_S == 1.0
    async with (
        between(str(own_valkey.socket)) as wire,
        connected(f"redis://127.0.0.1:{wire.port}", deadline_s=DEADLINE_S) as connection,
    ):
        own_valkey.pause()
        for _ in range(5):
            await away(connection)
        opened = wire.connections
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            await away(connection)
            await asyncio.sleep(0.001)
        assert 5 <= wire.connections - opened <= 11  # at both ends of the ten intervals
        own_valkey.resume()
        await answers(connection)


# There, and of no use.


@pytest.mark.parametrize(
    ("break_it", "heal_it", "said"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "ReadOnlyError"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OutOfMemoryError"),
        ("CONFIG SET min-replicas-to-write 3", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
        ("ACL SETUSER default -set", "ACL SETUSER default +set", "NoPermissionError"),
    ],
)
async def test_a_server_that_takes_no_writes_is_away(
    own_valkey: Valkey, break_it: str, heal_it: str, said: str
) -> None:
    """F083, and a probe that only reads would call it well."""
    async with connected(own_valkey.url) as connection:
        assert own_valkey.send(*break_it.split()) == b"+OK\r\n"
        for _ in range(5):
            assert said in await away(connection, "SET", "a", "1")
        assert not connection.state.up
        await asyncio.sleep(0.25)
        assert not connection.state.up
        assert said in (connection.state.last_error or "")
        assert own_valkey.send(*heal_it.split()) == b"+OK\r\n"
        await answers(connection)


async def test_a_replica_and_a_full_server_are_asked_on_a_new_connection(own_valkey: Valkey) -> None:
    """F083: their name may lead somewhere else."""
    async with connected(own_valkey.url) as connection:
        assert await connection.run(COUNT, ["k"], []) == 1
        for break_it, heal_it, said in (
            (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "ReadOnlyError"),
            (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "OutOfMemoryError"),
        ):
            own_valkey.command(*break_it)
            with pytest.raises(StoreAway, match=said):
                await connection.run(COUNT, ["k"], [])
            assert connection.state.up
            own_valkey.command(*heal_it)
            before = int(counted(own_valkey, "stats", "total_connections_received"))
            assert await connection.run(COUNT, ["k"], []) in {2, 3}
            after = int(counted(own_valkey, "stats", "total_connections_received"))
            assert after == before + 2, "the one that counts, and the new one"


async def test_a_server_that_is_busy_with_a_script_is_away(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url, deadline_s=DEADLINE_S) as connection:
        await connection.call("CONFIG", "SET", "busy-reply-threshold", 1)
        await away(connection, "EVAL", "while true do end", "0")
        await soon(lambda: own_valkey.send("PING").startswith(b"-BUSY"))
        while connection.state.up:
            await away(connection)
        assert own_valkey.send("SCRIPT", "KILL") == b"+OK\r\n"
        await answers(connection)


async def test_signing_in(own_valkey: Valkey) -> None:
    own_valkey.send("CONFIG", "SET", "requirepass", "s3cret-canary")
    host = f"127.0.0.1:{own_valkey.port}"
    async with connected(f"redis://:s3cret-canary@{host}/2") as connection:
        assert await connection.call("PING") == b"PONG"
    for url in (f"redis://:wr0ng-canary@{host}", f"redis://{host}", f"redis://nobody:wr0ng-canary@{host}"):
        async with connected(url) as connection:
            assert not connection.state.up
            assert "canary" not in await away(connection) + repr(connection.state)


# Slow.


async def test_a_burst_is_answered_at_once(valkey: Valkey) -> None:
    """500 scripts, at the production deadline: 50 ms, and nobody is turned away."""
    async with connected(valkey.url, deadline_s=DEADLINE_S, probe_s=PROBE_S) as connection:
        await asyncio.gather(*(outcome(connection.run(COUNT, ["k"], [])) for _ in range(500)))
        await soon(lambda: connection.state.up)
        valkey.flush()
        came, took_s = await unlagged(asyncio.gather(*(connection.run(COUNT, ["k"], []) for _ in range(500))))
        assert came == list(range(1, 501))
        assert took_s <= 0.05


async def test_a_crowd_is_waited_for_within_bounds(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """F088: one at a time is answered, and slowly."""
    monkeypatch.setattr(pipe, "BATCH_MAX", 1)
    monkeypatch.setattr(pipe, "CROWD", 2)
    async with (
        between(str(valkey.socket)) as wire,
        connected(f"redis://127.0.0.1:{wire.port}", deadline_s=0.4) as connection,
    ):
        await connection.call("PING")
        wire.delay_s = lambda _: 0.25

        async def ask() -> tuple[str, float]:
            watch = Stopwatch()
            came = await outcome(connection.call("PING"))
            return "answered" if came == b"PONG" else str(came), watch.spent_s

        asked = await asyncio.gather(*(ask() for _ in range(12)))
        said = [what for what, _ in asked]
        assert max(spent_s for _, spent_s in asked) <= 2 * 0.4 + SLACK_S
        assert said.count("answered") == 3
        assert said.count("Redis is busy with what was asked before") == 9
        assert connection.state.up  # a crowd is no proof against Redis


@pytest.mark.parametrize(("bound", "most"), [("WAITING_MAX", 10), ("WAITING_BYTES_MAX", 1000)])
async def test_more_than_can_wait_is_turned_away_at_once(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """F088."""
    monkeypatch.setattr(pipe, bound, most)
    async with connected(valkey.url) as connection:
        asked = [asyncio.create_task(outcome(connection.call("ECHO", "x" * 79))) for _ in range(30)]  # 100 bytes each
        await asyncio.sleep(0)
        turned_away = [task for task in asked[10:] if task.done()]
        assert len(turned_away) == 20
        assert {str(task.result()) for task in turned_away} == {"too much waits for Redis already"}
        assert await asyncio.gather(*asked[:10]) == [b"x" * 79] * 10
        assert connection.state.up
        assert await connection.call("ECHO", "y") == b"y"


async def test_a_server_that_is_always_late_is_away(valkey: Valkey) -> None:
    """It answers, only never in time: that is of no use, and the probe finds the same."""
    async with (
        between(str(valkey.socket)) as wire,
        connected(f"redis://127.0.0.1:{wire.port}", deadline_s=0.1) as connection,
    ):
        wire.delay_s = lambda _: 0.15
        for _ in range(FAILURES):
            await away(connection)
        assert not connection.state.up
        await asyncio.sleep(0.3)
        assert not connection.state.up
        wire.delay_s = lambda _: 0.0
        await answers(connection)


LARGE = b"\x00\xff\r\n" * (256 * 1024)


@pytest.mark.parametrize("bulk", [False, True])
async def test_large_values_come_back_whole_and_make_nobody_fail(valkey: Valkey, bulk: bool) -> None:
    """32 of 1 MiB at once, said to be large or not."""
    async with connected(valkey.url) as connection:
        large = [connection.call("SET", f"large {number % 4}", LARGE, bulk=bulk) for number in range(32)]
        small = [connection.call("ECHO", f"{number}") for number in range(32)]
        assert await asyncio.gather(*large, *small) == [b"OK"] * 32 + [b"%d" % number for number in range(32)]
        large = [connection.call("GET", f"large {number % 4}", bulk=bulk) for number in range(32)]
        assert await asyncio.gather(*large) == [LARGE] * 32
        assert connection.state.up


async def test_nobody_waits_behind_a_large_value(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        await connection.call("SET", "large", LARGE, bulk=True)
        large = [asyncio.create_task(connection.call("GET", "large", bulk=True)) for _ in range(64)]
        await asyncio.sleep(0)
        for number in range(8):
            assert await connection.call("ECHO", f"{number}") == b"%d" % number
        assert sum(task.done() for task in large) < 32
        assert await asyncio.gather(*large) == [LARGE] * 64


async def test_a_connection_that_opens_slowly_serves_the_next(valkey: Valkey) -> None:
    async with between(str(valkey.socket)) as wire:
        wire.delay_s = lambda number: 0.25 if number == 0 else 0.0
        connection = RedisConnection(f"redis://127.0.0.1:{wire.port}/1", deadline_s=0.1)  # SELECT is what it waits for
        try:
            spent_s, _ = await timed(connection.call("GET", "a"))
            assert spent_s <= 0.1 + SLACK_S
            await asyncio.sleep(0.2)
            assert await connection.call("PING") == b"PONG"
            assert wire.connections == 1
        finally:
            await connection.close()


async def test_clients_who_leave_while_it_opens_open_no_more(valkey: Valkey) -> None:
    async with between(str(valkey.socket)) as wire:
        wire.delay_s = lambda number: 0.2 if number == 0 else 0.0
        connection = RedisConnection(f"redis://127.0.0.1:{wire.port}/1", deadline_s=1.0)
        try:
            for _ in range(20):
                asking = [asyncio.create_task(connection.call("PING")) for _ in range(2)]
                await asyncio.sleep(0.002)
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
            assert await asyncio.gather(*(connection.call("PING") for _ in range(8))) == [b"PONG"] * 8
            assert wire.connections == 1
        finally:
            await connection.close()


async def test_a_connection_is_closed_while_it_opens(own_valkey: Valkey) -> None:
    connection = RedisConnection(f"redis://127.0.0.1:{own_valkey.port}/1")  # SELECT is what it waits for
    own_valkey.pause()
    await away(connection)
    assert len(left_over()) == 1
    await connection.close()
    assert left_over() == []


# Cancelled.


@pytest.mark.parametrize("deadline_s", [5.0, DEADLINE_S])
async def test_no_answer_goes_to_somebody_else(valkey: Valkey, deadline_s: float) -> None:
    """F087: 10,000 operations cancelled at random, half of them with deadlines that pass too: no answer is another's."""
    rng = random.Random(20)
    right = cancelled = 0
    late: list[str] = []
    async with between(str(valkey.socket)) as wire:
        wire.delay_s = lambda _: rng.random() * 0.008
        async with connected(f"redis://127.0.0.1:{wire.port}", deadline_s=deadline_s) as connection:

            async def ask(number: int) -> None:
                nonlocal right
                canary = f"tenant-{number}-{rng.random()}"
                try:
                    if number % 2:
                        answer = await connection.call("ECHO", canary)
                    else:
                        answer = await connection.run(script(b"return ARGV[1]"), [], [canary])
                except StoreAway as why:
                    late.append(str(why))
                    return
                assert answer == canary.encode()
                right += 1

            async def worker(first: int) -> None:
                nonlocal cancelled
                for number in range(first, first + 250):
                    task = asyncio.create_task(ask(number))
                    if rng.random() < 0.7:
                        await asyncio.sleep(rng.random() * 0.012)
                        task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        cancelled += 1

            await asyncio.gather(*(worker(first) for first in range(0, 5000, 250)))
            wire.delay_s = lambda _: 0.0
            # Nothing has been lost.
            await answers(connection)
            assert await asyncio.gather(*(insist(connection, "ECHO", f"{n}") for n in range(8))) == [
                b"%d" % n for n in range(8)
            ]
    assert right + cancelled + len(late) == 5000
    if deadline_s == 5.0:
        assert late == []
        assert min(right, cancelled) > 500


async def test_cancelled_callers_leave_no_answer_to_others(valkey: Valkey) -> None:
    """F087: 10,000 calls in bursts, a third of them cancelled at a random moment; 0 wrong answers, and no new connection."""
    rng = random.Random(1)
    async with connected(valkey.url) as connection:

        async def one(number: int) -> bool:
            task = asyncio.create_task(connection.run(ECHO, [], [str(number)]))
            if number % 3 == 0:
                await asyncio.sleep(rng.random() * 0.002)
                task.cancel()
            try:
                return bool(await task == str(number).encode())
            except asyncio.CancelledError:
                return True

        before = int(counted(valkey, "stats", "total_connections_received"))
        for start in range(0, 10_000, 500):
            assert all(await asyncio.gather(*(one(number) for number in range(start, start + 500))))
        assert int(counted(valkey, "stats", "total_connections_received")) == before + 1


async def test_a_cancelled_operation_is_no_failure(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url) as connection:
        own_valkey.pause()
        for _ in range(20):
            task = asyncio.create_task(connection.call("PING"))
            await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert connection.state.up
        own_valkey.resume()


async def test_what_waits_when_it_is_closed_gets_an_answer(own_valkey: Valkey) -> None:
    connection = RedisConnection(own_valkey.url, deadline_s=5.0)
    await connection.call("PING")
    with paused(own_valkey):
        calls = [asyncio.create_task(outcome(connection.call("PING", bulk=bulk))) for bulk in (False, True) * 20]
        await asyncio.sleep(0.002)
        await connection.close()
        assert all(isinstance(came, StoreAway) for came in await asyncio.gather(*calls))
        assert isinstance(await outcome(connection.call("PING")), StoreAway)
    assert left_over() == []


# Elsewhere.


async def test_over_tls(valkey: Valkey, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with between(str(valkey.socket), context) as wire:
        url = f"rediss://localhost:{wire.port}"
        async with connected(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}") as connection:
            assert await connection.call("ECHO", "a") == b"a"
        async with connected(url) as connection:
            assert "CERTIFICATE_VERIFY_FAILED" in (connection.state.last_error or "")


async def test_through_a_sentinel(own_valkey: Valkey, valkey: Valkey) -> None:
    folder = own_valkey.folder / "sentinel"
    folder.mkdir()
    port = closed_port()
    configuration = folder / "conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {own_valkey.port} 1\n"
    )
    process = subprocess.Popen([BINARY, configuration, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        async with connected(f"redis+sentinel://127.0.0.1:{closed_port()},127.0.0.1:{port}/main") as connection:
            await answers(connection)
            assert own_valkey.send("GET", "back") == b"$5\r\nagain\r\n"
            # It fails over: what was the primary is read-only now, and the sentinel knows another.
            other = RedisConnection(f"redis://127.0.0.1:{port}", deadline_s=1.0)
            await other.call("SENTINEL", "REMOVE", "main")
            await other.call("SENTINEL", "MONITOR", "main", "127.0.0.1", valkey.port, 1)
            await other.close()
            own_valkey.send("REPLICAOF", "127.0.0.1", str(valkey.port))
            assert "ReadOnlyError" in await away(connection, "SET", "a", "1")
            # Looked up anew, though reading would go on where it was and there are never five failures in a row.
            await connection.call("GET", "a")
            assert await connection.call("SET", "a", "1") == b"OK"
            assert valkey.send("GET", "a") == b"$1\r\n1\r\n"
        async with connected(f"redis+sentinel://127.0.0.1:{port}/unknown") as connection:
            assert "MasterNotFoundError" in (connection.state.last_error or "")
    finally:
        process.kill()
        process.wait()


async def test_sentinels_fail_over_under_load(own_valkey: Valkey) -> None:
    """Its death is noticed by nobody but them, and what was asked meanwhile is done once or not at all."""
    with (
        serving("--replicaof", f"127.0.0.1 {own_valkey.port}", "--repl-diskless-sync-delay", "0") as replica,
        sentinels(own_valkey, "main") as ports,
    ):
        url = "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in (closed_port(), *ports)) + "/main"
        asked, done, taken_over = [0] * 8, [0] * 8, [False] * 8
        async with connected(url, deadline_s=0.2) as connection, listening(connection, "news") as heard:

            async def count(number: int) -> None:
                while not taken_over[number] or done[number] < 20:
                    asked[number] += 1
                    came = await outcome(connection.run(COUNT, [f"k{number}"], []))
                    if isinstance(came, StoreAway):
                        taken_over[number] = own_valkey.is_running is False
                        done[number] = 0
                        await asyncio.sleep(0.01)
                        continue
                    assert 0 < came <= asked[number]
                    done[number] += 1

            counting = [asyncio.create_task(count(number)) for number in range(8)]
            await soon(lambda: min(done) > 50)
            own_valkey.stop()
            watch = Stopwatch()
            await asyncio.wait_for(asyncio.gather(*counting), 20)
            print(f"back after {watch.spent_s:.2f} s")
            assert all(taken_over)
            assert "role:master" in replica.command("INFO", "replication")
            for number in range(8):
                assert int(replica.command("GET", f"k{number}")) >= 20
            await soon(lambda: connection.state.up)
            assert await asyncio.wait_for(heard.get(), 10) is None
            await insist(connection, "PUBLISH", "news", "two")
            assert await asyncio.wait_for(heard.get(), 5) == b"two"


# Channels.


@asynccontextmanager
async def listening(connection: RedisConnection, channel: str) -> AsyncIterator["asyncio.Queue[bytes | None]"]:
    heard: asyncio.Queue[bytes | None] = asyncio.Queue()
    task = asyncio.create_task(connection.listen(channel, heard.put_nowait))
    assert await asyncio.wait_for(heard.get(), 5) is None
    try:
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_channel_says_when_something_may_have_been_missed(own_valkey: Valkey) -> None:
    async with connected(own_valkey.url) as connection, listening(connection, "news") as heard:
        await connection.call("PUBLISH", "news", b"\x00one")
        await connection.call("PUBLISH", "other", b"none")
        assert await asyncio.wait_for(heard.get(), 5) == b"\x00one"
        own_valkey.stop()
        own_valkey.start()
        assert await asyncio.wait_for(heard.get(), 5) is None
        own_valkey.send("PUBLISH", "news", "two")
        assert await asyncio.wait_for(heard.get(), 5) == b"two"


async def test_a_silent_channel_is_not_a_dead_one(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    async with connected(own_valkey.url) as connection, listening(connection, "news") as heard:
        await asyncio.sleep(0.3)
        assert heard.empty()
        own_valkey.pause()
        await asyncio.sleep(0.15)
        own_valkey.resume()
        assert await asyncio.wait_for(heard.get(), 5) is None
        own_valkey.send("PUBLISH", "news", "again")
        assert await asyncio.wait_for(heard.get(), 5) == b"again"
