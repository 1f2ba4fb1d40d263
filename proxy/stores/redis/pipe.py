"""Commands and replies over one connection that all callers share, in order and in batches. Knows nothing of being away.

What is asked goes out in batches of `BATCH_MAX` calls or `BATCH_BYTES_MAX`, the next as soon as replies have come and less
than a batch is unanswered: so Redis works while replies are read, which makes a burst a third shorter than batch after
batch. Replies come in the order of the commands, and nothing else tells whose they are: when one is waited for no longer
and nothing comes, the connection is closed. Who is cancelled costs nothing: what was not sent never is, what was sent has
its reply read and dropped. Nothing is ever sent twice, but for a script that the server says it does not know, which is
sent again in full. What a node of a Cluster is asked because another sent it there goes behind an ASKING each time.

- *Silence* ends a call: when nobody has got a reply for a deadline, or for as long as the call has been there. It is
  counted in ticks of this loop, so that a loop which was busy with other work does not take its own pause for the server's.
  However long a pause, it is one tick, and before the next the replies are read that have come meanwhile.
- *Crowds*: while others are answered a call waits for its turn, but for `CROWD` deadlines at most.
- *Opening* takes longer than a deadline where it must. Callers do not wait for it, the next find it done.

States: nothing (no connection), opening, idle, exchanging; one task at most, which opens or exchanges. Deliberately not
handled: who is to blame in the end, and when to try again, which is `connection`'s. Held by
`tests/stores/redis/test_pipe.py`, and on real servers by `test_connection.py`.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from proxy.stores.redis.address import Address

TICKS: Final = 4  # in a deadline: it ends up to one tick early, for who asks between two
CROWD: Final = 10  # 500 reservations at once, in 4 books each: 3 where nothing disturbs, 9 on a busy machine
BATCH_MAX: Final = 32  # so many scripts keep the server from other clients for 3 ms
BATCH_BYTES_MAX: Final = 256 * 1024  # one call may be larger, and then goes alone
WAITING_MAX: Final = 10_000  # calls; those behind them would not be answered in time
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024

_ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"

Command = Sequence[str | bytes | int | float]


class Unanswered(Exception):  # noqa: N818 - it names what happened
    """There is no reply, or not in time. ``blames_redis``: not where our own crowd, or our own end, is the reason."""

    def __init__(self, why: str, *, blames_redis: bool) -> None:
        super().__init__(why)
        self.blames_redis = blames_redis


@dataclass(slots=True)
class _Call:
    packed: bytes
    instead: Command | None
    reply: asyncio.Future[Any]
    asked_at: int  # the number of the tick
    asking: bool
    replies_before: int  # of its own: one to ASKING


class Pipe:
    """Used in one event loop. Failures are values: a reply is what Redis said, `RedisError`, `OSError` or `Unanswered`.

    ``patience`` may be set to fewer ticks than a deadline has, and back.
    """

    def __init__(self, address: Address, *, open_s: float, deadline_s: float) -> None:
        self._address = address
        self._open_s = open_s
        self._tick_s = deadline_s / TICKS
        self.patience = TICKS  # of silence, that end a call
        self._connection: AbstractConnection | None = None
        self._stale = False
        self._closed = False
        self._task: asyncio.Task[RedisError | OSError | None] | None = None  # opens, or exchanges
        self._waiting: deque[_Call] = deque()
        self._again: deque[_Call] = deque()  # the server did not know their script; they come before all that wait
        self._sent: deque[_Call] = deque()
        self._waiting_bytes = 0
        self._sent_bytes = 0
        self._ticking = False
        self._ticks = 0
        self._tick_at = 0.0  # when the next is due
        self._sent_at = 0
        self._quiet = 0  # ticks since the last reply, while somebody waited for one

    def ask(self, command: Command, instead: Command | None = None, *, asking: bool = False) -> "asyncio.Future[Any]":
        """Send a command; ``instead``, where the server does not know its script. Raises `TypeError`, a defect of ours."""
        reply = asyncio.get_running_loop().create_future()
        call = _Call(_written(command, asking=asking), instead, reply, self._ticks, asking, int(asking))
        if self._closed:
            _answer(call, Unanswered("the connection to Redis is closed", blames_redis=False))
        elif len(self._waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            _answer(call, Unanswered("too much waits for Redis already", blames_redis=False))
        else:
            self._waiting.append(call)
            self._waiting_bytes += len(call.packed)
            if self._task is None:
                self._go_on()
            if not self._ticking:
                self._ticking, self._quiet = True, 0
                self._tick_at = asyncio.get_running_loop().time()
                self._schedule_tick()
        return call.reply

    async def open(self) -> RedisError | OSError | None:
        """Be connected, or say why not. What waits for it is not cancelled with who asked for it."""
        while self._connection is None or self._stale:
            task = self._go_on()
            await asyncio.wait({task})
            error = None if task.cancelled() else task.result()
            if error is not None or self._closed:
                return error
        return None

    def renew(self) -> None:
        """Nothing more goes over the connection that is there now: the name may lead somewhere else by now."""
        self._stale = self._connection is not None

    async def drop(self, why: str) -> None:
        """Answer everybody with `why`, and close the connection."""
        gone = Unanswered(why, blames_redis=False)
        self._fail((self._sent, self._again, self._waiting), gone)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail((self._again, self._waiting), gone)
        await self._disconnect()

    async def close(self) -> None:
        self._closed = True
        await self.drop("the connection to Redis is closed")

    # The task.

    def _go_on(self) -> "asyncio.Task[RedisError | OSError | None]":
        """The task that is at it, or a new one."""
        if self._task is None:
            connection = self._connection
            doing = self._open() if connection is None else self._exchange(connection)
            self._task = asyncio.get_running_loop().create_task(doing)
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, _: "asyncio.Task[RedisError | OSError | None]") -> None:
        self._task = None
        if (self._waiting or self._again) and not self._closed:
            self._go_on()

    async def _open(self) -> RedisError | OSError | None:
        try:
            self._connection = await self._address.open(self._open_s)
        except (RedisError, OSError) as error:
            self._fail((self._again, self._waiting), error)
            return error
        return None

    async def _exchange(self, connection: AbstractConnection) -> RedisError | OSError | None:
        """Until nobody waits any more, or the connection is of no use."""
        try:
            self._stale = self._stale or await connection.can_read()  # its end, or a reply that is nobody's
            while True:
                batch = self._batch()
                if batch:
                    await connection.send_packed_command(batch, check_health=False)
                if not self._sent:
                    break
                await self._read(connection)
            if self._stale:
                await self._disconnect()
        except (RedisError, OSError) as error:
            self._fail((self._sent,), error)
            await self._disconnect()
        except BaseException:  # cancelled: by `drop`, or for silence, and then everybody has been told
            await self._disconnect()
            raise
        return None

    def _batch(self) -> list[bytes]:
        """What is to be sent now. It counts as sent from here on."""
        batch: list[bytes] = []
        if self._stale or len(self._sent) >= BATCH_MAX or self._sent_bytes >= BATCH_BYTES_MAX:
            return batch
        if self._again and self._sent:
            return batch  # what was sent behind them may be unknown too, and comes after them again
        size = 0
        while len(batch) < BATCH_MAX:
            queue = self._again or self._waiting
            if not queue or (batch and size + len(queue[0].packed) > BATCH_BYTES_MAX):
                break
            call = queue.popleft()
            if queue is self._waiting:
                self._waiting_bytes -= len(call.packed)
            if not call.reply.done():
                size += len(call.packed)
                batch.append(call.packed)
                self._sent.append(call)
        self._sent_bytes += size
        self._sent_at = self._ticks
        return batch

    async def _read(self, connection: AbstractConnection) -> None:
        """One reply."""
        reply: Any
        try:
            reply = await connection.read_response(disconnect_on_error=False)
        except ResponseError as error:
            reply = error
        self._quiet = 0
        if self._sent[0].replies_before:
            self._sent[0].replies_before -= 1
            return
        call = self._sent.popleft()
        self._sent_bytes -= len(call.packed)
        if isinstance(reply, NoScriptError) and call.instead is not None:
            call.packed, call.instead = _written(call.instead, asking=call.asking), None
            call.replies_before = int(call.asking)
            self._again.append(call)
        else:
            _answer(call, reply)

    async def _disconnect(self) -> None:
        """Whoever waits for a reply on it has been told."""
        self._sent.clear()
        self._sent_bytes = 0
        connection, self._connection, self._stale = self._connection, None, False
        if connection is not None:
            await connection.disconnect(nowait=True)

    def _fail(self, queues: Iterable[deque[_Call]], error: Exception) -> None:
        for queue in queues:
            while queue:
                _answer(queue.popleft(), error)
            if queue is self._waiting:
                self._waiting_bytes = 0

    # Silence.

    def _schedule_tick(self) -> None:
        """A tick after the last was due, as timers are late by 1 ms; but after a pause of the loop there is time to read."""
        loop = asyncio.get_running_loop()
        self._tick_at = max(self._tick_at + self._tick_s, loop.time() + self._tick_s / 2)
        loop.call_at(self._tick_at, self._tick)

    def _tick(self) -> None:
        self._ticks += 1
        self._quiet += 1
        self._expire(self._sent)
        self._expire(self._again)
        while self._waiting and self._is_over(self._waiting[0]):
            self._waiting_bytes -= len(self._waiting[0].packed)
            _answer(self._waiting.popleft(), self._late())
        silent = min(self._quiet, self._ticks - self._sent_at) >= self.patience
        if silent and self._sent and self._task is not None:
            self._task.cancel()
        self._ticking = bool(self._waiting or self._again or (self._sent and not silent))
        if self._ticking:
            self._schedule_tick()

    def _expire(self, calls: deque[_Call]) -> None:
        """They are in the order in which they were asked, and stay where they are: a reply may come yet, for nobody."""
        for call in calls:
            if not self._is_over(call):
                break
            _answer(call, self._late())

    def _is_over(self, call: _Call) -> bool:
        age = self._ticks - call.asked_at
        return min(age, self._quiet) >= self.patience or age >= TICKS * CROWD

    def _late(self) -> Unanswered:
        if self._quiet >= self.patience:
            within_ms = self.patience * self._tick_s * 1000
            return Unanswered(f"no answer within {within_ms:.0f} ms", blames_redis=True)
        return Unanswered("Redis is busy with what was asked before", blames_redis=False)


def _answer(call: _Call, reply: Any) -> None:
    if not call.reply.done():
        call.reply.set_result(reply)


def _written(command: Command, *, asking: bool) -> bytes:
    return (_ASKING if asking else b"") + packed(command)


def packed(command: Sequence[object]) -> bytes:
    """A command as it goes over the wire. Source: https://redis.io/docs/latest/develop/reference/protocol-spec/"""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        if isinstance(word, str):
            data = word.encode()
        elif isinstance(word, bytes):
            data = word
        elif isinstance(word, float):
            data = repr(word).encode()
        elif isinstance(word, int) and not isinstance(word, bool):
            data = b"%d" % word
        else:
            raise TypeError(f"a command of Redis has bytes, str, int and float, not {type(word).__name__}")
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
