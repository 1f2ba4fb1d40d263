"""Runs Lua scripts on one Redis or Valkey over one connection, and never lets a request wait for a server that is away.

What is asked while a batch is on its way goes into the next batch, in order: a burst of 500 reservations costs a few
round trips, a caller that is cancelled costs nothing (its reply is read and dropped), and what one caller asks is done in
the order in which it was asked.

- *Deadline*: when nothing has come for `DEADLINE_S` while something is asked, the connection is dropped and everything that
  waits gets `Away`. Silence is counted in ticks of this loop, so that a loop which was busy with other work does not take
  its own pause for the server's.
- *Guard*: `FAILURES_MAX` failed calls in a row open it: calls get `Away` at once, and a probe of its own asks the server
  once a second until it answers.

A call that got `Away` may have been carried out. Nothing is ever sent twice, but for a script that the server says it
does not know (after SCRIPT FLUSH, or a restart), which is sent again in full.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Final, Protocol

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError

from proxy.ports import Away

DEADLINE_S: Final = 0.02
CONNECT_S: Final = 0.05
FAILURES_MAX: Final = 5
PROBE_EVERY_S: Final = 1.0
BATCH_MAX: Final = 32  # the server answers a batch when it has done all of it: 2 ms
WAITING_MAX: Final = 10_000  # calls; more than that are not going to be answered in time
TICKS: Final = 4  # in a deadline


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. ``digest`` is what the server knows it by, no matter of security."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class ScriptRunner(Protocol):
    """Runs a script atomically. Shapes: the reply is None, int, bytes or a list of these."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> "Any | Away": ...


@dataclass(slots=True)
class _Call:
    script: Script
    rest: tuple[str | int, ...]
    reply: asyncio.Future[Any]
    whole: bool = False  # send the text, not the digest

    @property
    def command(self) -> tuple[str | int, ...]:
        return ("EVAL", self.script.text, *self.rest) if self.whole else ("EVALSHA", self.script.digest, *self.rest)


class RedisScripts:
    """One per process, event loop and server. ``url``: redis://, rediss:// or unix://, as redis-py reads it."""

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S) -> None:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),  # redis-py's default is 10 retries, and would send a script twice
            socket_timeout=None,
            socket_connect_timeout=CONNECT_S,
            driver_info=None,
        )
        self._connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call] # redis-py's
        self._tick_s = deadline_s / TICKS
        self._waiting: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()
        self._driver: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._ticking = False
        self._silent_ticks = 0
        self._failures = 0
        self._closed = False
        self._why = "nothing was asked yet"

    @property
    def away(self) -> bool:
        """Whether calls are refused unasked."""
        return self._prober is not None

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any | Away:
        if self._prober is not None or self._closed:
            return Away(self._why)
        if len(self._waiting) >= WAITING_MAX:
            return Away(f"{WAITING_MAX} calls wait already")
        call = _Call(script, (len(keys), *keys, *args), asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._driver is None:
            self._driver = asyncio.create_task(self._drive())
        if not self._ticking:
            self._ticking, self._silent_ticks = True, 0
            self._schedule_tick()
        return await call.reply

    async def close(self) -> None:
        """What still waits gets `Away`."""
        self._closed = True
        tasks = [task for task in (self._driver, self._prober) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._drop("its connection was closed")

    # Batches.

    async def _drive(self) -> None:
        try:
            while self._waiting:
                self._sent.extend(self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting))))
                await self._connection.connect()  # type: ignore[no-untyped-call] # redis-py's
                commands = self._connection.pack_commands([call.command for call in self._sent])
                await self._connection.send_packed_command(commands, check_health=False)
                await self._read_replies()
        except (RedisError, OSError) as error:
            await self._drop(f"{type(error).__name__}: {error}")
        except asyncio.CancelledError:
            # Cancelled for the server's silence, or by `close`, which does not care.
            await self._drop("it did not answer in time")
        finally:
            self._driver = None

    async def _read_replies(self) -> None:
        again: list[_Call] = []
        moved = False
        while self._sent:
            try:
                reply = await self._connection.read_response()
            except NoScriptError:
                call = self._sent.popleft()
                call.whole = True
                again.append(call)
                continue
            except ResponseError as error:
                # Out of memory, a read-only replica, a script that runs too long, a key of another kind: all say that
                # the books cannot be used now.
                moved = moved or isinstance(error, ReadOnlyError)
                reply = Away(f"{type(error).__name__}: {error}")
            self._silent_ticks = self._failures = 0
            _answer(self._sent.popleft(), reply)
        self._waiting.extendleft(reversed(again))
        if moved:
            await self._connection.disconnect(nowait=True)  # its name may lead to the new primary

    async def _drop(self, why: str) -> None:
        await self._connection.disconnect(nowait=True)
        self._fail(why)

    def _fail(self, why: str) -> None:
        self._failures += len(self._sent) + len(self._waiting)
        self._why = why
        for calls in (self._sent, self._waiting):
            while calls:
                _answer(calls.popleft(), Away(why))
        if self._failures >= FAILURES_MAX and self._prober is None and not self._closed:
            self._prober = asyncio.create_task(self._probe())

    # Silence.

    def _schedule_tick(self) -> None:
        asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        if self._driver is None:
            self._ticking = False
            return
        self._silent_ticks += 1
        if self._silent_ticks < TICKS:
            self._schedule_tick()
        else:
            self._ticking = False
            self._driver.cancel()

    # The guard.

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connection.connect()  # type: ignore[no-untyped-call] # redis-py's
                    await self._connection.send_command("PING", check_health=False)
                    await self._connection.read_response()
                break
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                self._why = f"{type(error).__name__}: {error}"
                await self._connection.disconnect(nowait=True)
        self._failures = 0
        self._prober = None


def _answer(call: _Call, reply: Any) -> None:
    if not call.reply.done():
        call.reply.set_result(reply)
