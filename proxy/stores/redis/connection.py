"""One guarded connection to Redis for all stores of a process.

Every operation is over within `DEADLINE_S`, whatever Redis does, opening a connection and waiting for a free one included.
After five failures in a row nothing is sent any more and operations fail at once, until a probe, one a second, has written
something in time: a server that answers but takes no writes (a replica, one out of memory, one that loads) is of no use.
What callers see is a reply or `StoreAway`, never an exception of redis-py. A deadline that passes leaves open whether the
command was carried out: nothing is sent twice.

Costs 35 to 75 us of CPU an operation, half of what redis-py's client with its pool costs.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import DataError, RedisError, ResponseError

from proxy.core import redact
from proxy.ports import StoreAway, StoreState
from proxy.stores.redis import address as addresses
from proxy.stores.redis.guard import Guard
from proxy.stores.redis.pool import Command, Pool

DEADLINE_S: Final = 0.02  # PRODUCT: of each store call
OPEN_S: Final = 1.0  # to open a connection, across a network and with TLS; who waits for it waits for DEADLINE_S
PROBE_S: Final = 1.0
CONNECTIONS: Final = 16
HEARTBEAT_S: Final = 5.0  # a channel that is silent for so long is asked whether it is still there
ERROR_CHARS_MAX: Final = 200

# Error replies of a server that is there and cannot serve. All others are of this one command.
_UNAVAILABLE: Final = frozenset(
    {"ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM", "NOREPLICAS"}
    | {"OOM", "READONLY", "TRYAGAIN", "UNKILLABLE"}
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script that the server runs as one step. Sent whole only where the server does not know it by its digest."""

    source: bytes
    digest: str

    @classmethod
    def of(cls, package: str, name: str) -> "Script":
        """The script in file `name` of `package`."""
        source = resources.files(package).joinpath(name).read_bytes()
        return cls(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


class RedisConnection:
    """Made in any thread, used in one event loop. `start` may be left out, `close` may not."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "penstock",
        wall: Callable[[], float] = time.time,
        connections: int = CONNECTIONS,
        deadline_s: float = DEADLINE_S,
        probe_s: float = PROBE_S,
    ) -> None:
        """Raises `BadRedisUrl`. ``prefix`` keeps the keys of several installations on one server apart."""
        self._address = addresses.parse(url)
        self._prefix = prefix
        self._wall = wall
        self._deadline_s = deadline_s
        self._probe_s = probe_s
        self._guard = Guard()
        self._pool = Pool(self._address, connections, OPEN_S)
        self._up = asyncio.Event()
        self._up.set()
        self._probing: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")

    @property
    def state(self) -> StoreState:
        return StoreState(self._address.shown, self._guard.down_since, self._guard.last_error)

    @property
    def database(self) -> int:
        return self._address.database

    def key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    async def start(self) -> None:
        """Find out how Redis is, so that no request has to. Takes at most `OPEN_S`."""
        self._probed_at = asyncio.get_running_loop().time()
        error = await self._tried()
        if error is not None and self._guard.up:
            self._guard.fall(error, self._wall())
            self._go_down()

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._pool.close()

    async def call(self, *command: str | bytes | int | float) -> Any:
        """Send one command. Shapes: strings of the reply are bytes. Raises `StoreAway`."""
        return await self._within_deadline(command, None)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int | float]) -> Any:
        """Run a script. Raises `StoreAway`."""
        rest = (len(keys), *keys, *arguments)
        return await self._within_deadline(("EVALSHA", script.digest, *rest), ("EVAL", script.source, *rest))

    async def listen(self, channel: str, told: Callable[[bytes | None], None]) -> None:
        """Call `told` with every message, until cancelled. None: from now on; what came before may have been missed."""
        while True:
            await self._up.wait()
            try:
                connection = await self._address.open(OPEN_S)
                try:
                    await _subscribed(connection, channel, told)
                finally:
                    await connection.disconnect(nowait=True)
            except (RedisError, OSError) as error:
                self._guard.last_error = self._reason(error)
            await asyncio.sleep(self._probe_s)

    async def _within_deadline(self, command: Command, instead: Command | None) -> Any:
        if not self._guard.up:
            raise StoreAway(f"Redis at {self._address.shown} is away: {self._guard.last_error}")
        loop = asyncio.get_running_loop()
        sent_at = float("inf")
        try:
            async with asyncio.timeout(self._deadline_s):
                async with self._pool.slots:
                    sent_at = loop.time()
                    reply = await self._pool.exchange(command, instead)
        except TimeoutError:
            if loop.time() - sent_at < self._deadline_s / 2:
                # It was waiting for a connection most of the time, which says nothing about Redis.
                raise StoreAway(f"all {self._pool.size} connections to Redis are busy") from None
            error = f"no answer within {self._deadline_s * 1000:.0f} ms"
            self._failed(error)
            raise StoreAway(error) from None
        except DataError:
            raise  # a bug of ours: not a thing that can be sent
        except (RedisError, OSError) as error:
            raise StoreAway(await self._judged(error)) from None
        self._guard.succeeded()
        return reply

    async def _judged(self, error: RedisError | OSError) -> str:
        """Count what went wrong, and say it."""
        reason = self._reason(error)
        if not isinstance(error, ResponseError) or _is_unavailable(error):
            self._failed(reason)
            if isinstance(error, ResponseError):
                await self._pool.drop_idle()  # what is demoted or full may be somewhere else when it is looked up again
        else:
            self._guard.last_error = reason
        return reason

    def _reason(self, error: BaseException) -> str:
        said = " ".join(str(error).split()) or "no answer"
        return redact.text(f"{type(error).__name__}: {said}", self._address.secrets)[:ERROR_CHARS_MAX]

    def _failed(self, reason: str) -> None:
        if self._guard.failed(reason, self._wall()):
            self._go_down()

    def _go_down(self) -> None:
        self._up.clear()
        self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """At once, for it may have been this loop that stood still; then, and if it falls again, once an interval."""
        await self._pool.drop_idle()
        loop = asyncio.get_running_loop()
        while not self._guard.up:
            await asyncio.sleep(self._probed_at + self._probe_s - loop.time())
            self._probed_at = loop.time()
            error = await self._tried()
            if error is None:
                self._guard.recovered()
                self._up.set()
            else:
                self._guard.last_error = error

    async def _tried(self) -> str | None:
        """Open a connection and write something in time. None, and the connection is kept; or what went wrong."""
        try:
            connection = await self._address.open(OPEN_S)
        except (RedisError, OSError) as error:
            return self._reason(error)
        written = False
        try:
            async with asyncio.timeout(self._deadline_s):
                await connection.send_command("SET", self.key("probe"), "1", "PX", 1000, check_health=False)
                await connection.read_response()
            written = True
        except (RedisError, OSError) as error:
            return self._reason(error)
        finally:
            if written:
                await self._pool.give(connection)
            else:
                await connection.disconnect(nowait=True)
        return None


def _is_unavailable(error: ResponseError) -> bool:
    code = error.status_code or str(error).partition(" ")[0]
    return code in _UNAVAILABLE


async def _subscribed(connection: AbstractConnection, channel: str, told: Callable[[bytes | None], None]) -> None:
    """Read a channel until the connection ends. Raises redis-py's errors, `OSError`."""
    await connection.send_command("SUBSCRIBE", channel, check_health=False)
    asked = True  # whether something must come in time
    while True:
        heard = await connection.read_response(timeout=HEARTBEAT_S)
        match heard:
            case [b"subscribe", *_]:
                told(None)
            case [b"message", _, bytes(data)]:
                told(data)
            case None if asked:
                raise TimeoutError(f"the channel said nothing for {HEARTBEAT_S:.0f} s")
            case None:
                await connection.send_command("PING", check_health=False)
        asked = heard is None
