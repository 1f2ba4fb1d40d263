"""The pipe against a server in the test's hand: what is sent when, whose a reply is, and what is never sent twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.connection import PythonRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from proxy.stores.redis import address, pipe
from proxy.stores.redis.pipe import BATCH_BYTES_MAX, BATCH_MAX, Pipe, Unanswered, packed

NOSCRIPT = b"-NOSCRIPT No matching script.\r\n"


class Server:
    """Hears commands, and says only what it is told to. ``heard``: the words of each, over all connections."""

    def __init__(self) -> None:
        self.heard: list[list[bytes]] = []
        self.connections = 0
        self.port = 0
        self._writer: asyncio.StreamWriter | None = None
        self._owed: list[list[bytes]] = []  # heard on the latest connection, and not replied to by `answer`
        self._news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writer = writer
        owed = self._owed = []
        try:
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                self.heard.append(words)
                owed.append(words)
                self._news.set()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def say(self, *replies: bytes) -> None:
        assert self._writer is not None
        self._writer.write(b"".join(replies))

    def answer(self, most: int, is_unknown: Callable[[], bool] = lambda: False) -> None:
        """Send back what the oldest commands carry; or, of those by digest, that it is not known."""
        if self._writer is None or self._writer.is_closing():
            return
        now, self._owed[:] = self._owed[:most], self._owed[most:]
        for words in now:
            self.say(NOSCRIPT if words[0] == b"EVALSHA" and is_unknown() else bulk(words[3]))

    def cut(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()

    async def hears(self, count: int) -> list[list[bytes]]:
        """Wait until there have been so many commands, and no more of them come."""
        async with asyncio.timeout(5):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()
        await asyncio.sleep(0.01)
        assert len(self.heard) == count
        return self.heard


@asynccontextmanager
async def piped(deadline_s: float = 5.0) -> AsyncIterator[tuple[Server, Pipe]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    made = Pipe(address.parse(f"redis://127.0.0.1:{server.port}"), open_s=1.0, deadline_s=deadline_s)
    try:
        yield server, made
    finally:
        await made.close()
        listening.close()


def bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


# What goes over the wire.


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("SET", "a", b"\x00\xff\r\n"),
        ("SET", "ä€😀", ""),
        ("SET", "a", 0, -1, 2**63, 10**30, 0.5, 1e100, float("inf")),
        ("EVALSHA", "0" * 40, 1, "key", b"x" * 100_000),
    ],
)
def test_commands_look_as_redis_py_writes_them(command: tuple[str | bytes | int | float, ...]) -> None:
    encoder = PythonRespSerializer(6000, lambda word: word if isinstance(word, bytes) else _encoded(word))
    assert packed(command) == b"".join(encoder.pack(*command))  # type: ignore[no-untyped-call] # redis-py's


def _encoded(word: Any) -> bytes:
    return word.encode() if isinstance(word, str) else repr(word).encode()


@pytest.mark.parametrize("word", [None, True, ["a"], {"a": 1}])
def test_what_redis_does_not_take_is_a_defect(word: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(word).__name__}"):
        packed(["SET", "a", word])


# Batches.


async def test_the_next_batch_goes_when_less_than_one_is_unanswered() -> None:
    async with piped() as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(3 * BATCH_MAX)]
        await server.hears(BATCH_MAX)
        server.say(b":0\r\n")
        heard = await server.hears(2 * BATCH_MAX)
        assert [int(words[1]) for words in heard] == list(range(2 * BATCH_MAX))
        server.say(*(b":%d\r\n" % number for number in range(1, BATCH_MAX)))
        await server.hears(2 * BATCH_MAX)
        server.say(b":%d\r\n" % BATCH_MAX)
        await server.hears(3 * BATCH_MAX)
        server.say(*(b":%d\r\n" % number for number in range(BATCH_MAX + 1, 3 * BATCH_MAX)))
        assert await asyncio.gather(*asked) == list(range(3 * BATCH_MAX))
        assert server.connections == 1


async def test_a_batch_is_bounded_by_bytes_and_one_call_may_be_larger() -> None:
    third = b"x" * (BATCH_BYTES_MAX // 3)
    async with piped() as (server, made):
        asked = [made.ask(("SET", "a", value)) for value in (third, third, third, third * 12, b"small")]
        for count, replies in ((2, 2), (4, 1), (4, 1), (5, 1)):
            await server.hears(count)
            server.say(b"+OK\r\n" * replies)
        assert await asyncio.gather(*asked) == [b"OK"] * 5


async def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    async with piped() as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(BATCH_MAX + 3)]
        await server.hears(BATCH_MAX)
        asked[1].cancel()
        asked[-2].cancel()
        server.say(*(b":%d\r\n" % number for number in range(BATCH_MAX)))
        heard = await server.hears(BATCH_MAX + 2)
        assert [int(words[1]) for words in heard[-2:]] == [BATCH_MAX, BATCH_MAX + 2]
        server.say(b":32\r\n", b":34\r\n")
        assert [await one for one in asked if not one.cancelled()] == [0, *range(2, BATCH_MAX + 1), BATCH_MAX + 2]
        assert server.connections == 1


async def test_unknown_scripts_are_sent_whole_in_their_order_before_all_that_wait() -> None:
    async with piped() as (server, made):
        asked = [
            made.ask(("EVALSHA", "d", 0, f"{number}"), ("EVAL", "text", 0, f"{number}"))
            for number in range(BATCH_MAX + 2)
        ]
        await server.hears(BATCH_MAX)
        server.say(NOSCRIPT)
        await server.hears(BATCH_MAX)  # nothing overtakes it
        server.say(NOSCRIPT * (BATCH_MAX - 2), b":31\r\n")
        heard = await server.hears(2 * BATCH_MAX)
        assert [words[0] for words in heard[BATCH_MAX:]] == [b"EVAL"] * (BATCH_MAX - 1) + [b"EVALSHA"]
        assert [int(words[3]) for words in heard[BATCH_MAX:]] == [*range(BATCH_MAX - 1), BATCH_MAX]
        server.say(*(b":%d\r\n" % number for number in range(BATCH_MAX - 1)), NOSCRIPT)
        await server.hears(2 * BATCH_MAX + 1)  # the last of all; the one before it is sent again when that is answered
        server.say(b":33\r\n")
        await server.hears(2 * BATCH_MAX + 2)
        server.say(b":32\r\n")
        assert await asyncio.gather(*asked) == list(range(BATCH_MAX + 2))


async def test_a_script_that_is_unknown_when_sent_whole_is_an_error() -> None:
    async with piped() as (server, made):
        asked = made.ask(("EVALSHA", "d", 0), ("EVAL", "text", 0))
        await server.hears(1)
        server.say(NOSCRIPT)
        await server.hears(2)
        server.say(NOSCRIPT)
        assert isinstance(await asked, ResponseError)


async def test_asking_stands_before_what_is_asked_each_time() -> None:
    """Of a node of a Cluster; its own reply is nobody's."""
    async with piped() as (server, made):
        asked = [
            made.ask(("EVALSHA", "d", 0, "a"), ("EVAL", "text", 0, "a"), asking=True),
            made.ask(("ECHO", "b")),
            made.ask(("ECHO", "c"), asking=True),
        ]
        assert [words[0] for words in await server.hears(5)] == [b"ASKING", b"EVALSHA", b"ECHO", b"ASKING", b"ECHO"]
        server.say(b"+OK\r\n", NOSCRIPT, b"+b\r\n", b"-ERR asking\r\n", b"+c\r\n")
        assert [words[0] for words in (await server.hears(7))[5:]] == [b"ASKING", b"EVAL"]
        server.say(b"+OK\r\n", b"+a\r\n")
        assert await asyncio.gather(*asked) == [b"a", b"b", b"c"]
        assert server.connections == 1


# Ends.


async def test_what_was_sent_is_lost_with_its_connection_and_what_waits_goes_on() -> None:
    async with piped() as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(2 * BATCH_MAX + 1)]
        await server.hears(BATCH_MAX)
        server.say(b":0\r\n")
        await server.hears(2 * BATCH_MAX)
        server.cut()
        await server.hears(2 * BATCH_MAX + 1)
        assert server.connections == 2
        server.say(b":64\r\n")
        answers = await asyncio.gather(*asked)
        assert (answers[0], answers[-1]) == (0, 2 * BATCH_MAX)
        assert all(isinstance(one, RedisConnectionError) for one in answers[1:-1])


async def test_a_reply_that_is_nobody_s_ends_the_connection() -> None:
    async with piped() as (server, made):
        first = made.ask(("ECHO", "1"))
        await server.hears(1)
        server.say(b":1\r\n", b":666\r\n")
        assert await first == 1
        await asyncio.sleep(0.01)
        second = made.ask(("ECHO", "2"))
        await server.hears(2)
        server.say(b":2\r\n")
        assert await second == 2
        assert server.connections == 2


async def test_renewed_it_finishes_what_was_sent_and_sends_nothing_more() -> None:
    async with piped() as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(BATCH_MAX + 1)]
        await server.hears(BATCH_MAX)
        made.renew()
        server.say(*(b":%d\r\n" % number for number in range(BATCH_MAX)))
        await server.hears(BATCH_MAX + 1)
        assert server.connections == 2
        server.say(b":32\r\n")
        assert await asyncio.gather(*asked) == list(range(BATCH_MAX + 1))


async def test_dropped_it_answers_everybody_and_can_be_used_again() -> None:
    async with piped() as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(BATCH_MAX + 1)]
        await server.hears(BATCH_MAX)
        await made.drop("because")
        assert {str(one) for one in await asyncio.gather(*asked)} == {"because"}
        again = made.ask(("ECHO", "again"))
        await server.hears(BATCH_MAX + 1)
        server.say(b"+again\r\n")
        assert await again == b"again"


# Silence.


async def test_a_late_reply_is_read_for_nobody_while_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited long enough goes; the connection stays, for it is not silent."""
    monkeypatch.setattr(pipe, "CROWD", 1)
    async with piped(deadline_s=0.2) as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(4)]
        await server.hears(4)
        for number in range(3):
            await asyncio.sleep(0.09)
            server.say(b":%d\r\n" % number)
        assert isinstance(await asked[3], Unanswered)
        assert not (await asked[3]).blames_redis
        later = made.ask(("ECHO", "4"))
        server.say(b":3\r\n", b":4\r\n")
        assert await later == 4
        assert server.connections == 1


async def test_silence_blames_redis_and_ends_the_connection() -> None:
    async with piped(deadline_s=0.1) as (server, made):
        asked = [made.ask(("ECHO", f"{number}")) for number in range(BATCH_MAX + 1)]
        answers = await asyncio.gather(*asked)
        assert all(isinstance(one, Unanswered) and one.blames_redis for one in answers)
        again = made.ask(("ECHO", "again"))
        await server.hears(BATCH_MAX + 1)
        server.say(b"+again\r\n")
        assert await again == b"again"
        assert server.connections == 2


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_each_gets_its_own_reply_or_none(seed: int) -> None:
    """At random: asked in bursts, cancelled, answered, unknown, cut off, renewed. Checked against what the server heard."""
    rng = random.Random(seed)
    async with piped() as (server, made):
        asked: list[asyncio.Future[Any]] = []
        for _ in range(300):
            for _ in range(rng.choice((0, 0, 1, 2, 40))):
                word = f"{len(asked)}"
                asked.append(made.ask(("EVALSHA", "d", 0, word), ("EVAL", "text", 0, word)))
            if asked and rng.random() < 0.3:
                rng.choice(asked[-50:]).cancel()
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)
            server.answer(rng.randrange(40), lambda: rng.random() < 0.1)
            match rng.randrange(100):
                case 0 | 1 if server.connections:
                    server.cut()
                case 2 | 3:
                    made.renew()
        async with asyncio.timeout(5):
            while not all(one.done() for one in asked):
                server.answer(1000)
                await asyncio.sleep(0.001)
        answered = 0
        for number, one in enumerate(asked):
            if not one.cancelled() and not isinstance(one.result(), Exception):
                assert one.result() == b"%d" % number
                answered += 1
        assert answered > len(asked) / 2
        by_digest = [int(words[3]) for words in server.heard if words[0] == b"EVALSHA"]
        whole = [int(words[3]) for words in server.heard if words[0] == b"EVAL"]
        assert by_digest == sorted(set(by_digest)), "in order, and none twice"
        assert len(whole) == len(set(whole))
        assert set(whole) <= set(by_digest)
        assert whole, "some were unknown"
