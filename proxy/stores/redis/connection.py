"""One guarded connection to Redis for all stores of a process.

Every operation is over `DEADLINE_S` after Redis fell silent, whatever it does, opening a connection included; while it
answers others, in `pipe.CROWD` deadlines. After five failures in a row nothing is sent any more and operations fail at
once, until a probe, one a second, has written something in time: a server that answers but takes no writes (a replica, one
out of memory, one that loads) is of no use. What callers see is a reply or `StoreAway`, never an exception of redis-py. A
deadline that passes leaves open whether the command was carried out: nothing is sent twice.

`pipe` carries the commands of all callers. Large values have a pipe of their own, opened when there is the first. Beside 32
that are written at once, 1 MiB each, an ECHO took 0.6 to 0.7 ms (the median), and 25 to 50 ms in the same pipe.

Costs 24 to 30 us of CPU for a script that is run alone, 11 to 13 us in bursts of 16 or more (redis-py 8.1's Python parser,
uvloop, on the machine where a connection an operation cost 27 to 37 us either way). 500 reservations at once take 25 to 35
ms in one book each and 50 to 70 ms in four, of which Redis has half. Other work on the machine can double all of these.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from proxy.core import redact
from proxy.ports import StoreAway, StoreState
from proxy.stores.redis import address as addresses
from proxy.stores.redis.guard import Guard
from proxy.stores.redis.pipe import Command, Pipe, Unanswered

DEADLINE_S: Final = 0.02
OPEN_S: Final = 1.0  # to open a connection, across a network and with TLS; who waits for it waits for DEADLINE_S
PROBE_S: Final = 1.0
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
        deadline_s: float = DEADLINE_S,
        probe_s: float = PROBE_S,
        told: Callable[[StoreState], None] | None = None,
    ) -> None:
        """Raises `BadRedisUrl`. ``prefix`` keeps the keys of several installations on one server apart.

        ``told`` is called whenever Redis goes away or is back, in the event loop, and must not raise.
        """
        self._address = addresses.parse(url)
        self._prefix = prefix
        self._wall = wall
        self._probe_s = probe_s
        self._guard = Guard()
        self._small, self._bulk = (Pipe(self._address, open_s=OPEN_S, deadline_s=deadline_s) for _ in range(2))
        self._up = asyncio.Event()
        self._up.set()
        self._probing: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")
        self._told = told

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
        await self._small.close()
        await self._bulk.close()

    async def call(self, *command: str | bytes | int | float, bulk: bool = False) -> Any:
        """Send one command. Shapes: strings of the reply are bytes. Raises `StoreAway`.

        ``bulk``: there or back it may carry more than 64 KiB; in order with others of its kind only.
        """
        return await self._asked(command, None, bulk=bulk)

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[str | bytes | int | float],
        *,
        bulk: bool = False,
    ) -> Any:
        """Run a script. Raises `StoreAway`."""
        rest = (len(keys), *keys, *arguments)
        return await self._asked(("EVALSHA", script.digest, *rest), ("EVAL", script.source, *rest), bulk=bulk)

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

    async def _asked(self, command: Command, instead: Command | None, *, bulk: bool) -> Any:
        if not self._guard.up:
            raise StoreAway(f"Redis at {self._address.shown} is away: {self._guard.last_error}")
        reply = await (self._bulk if bulk else self._small).ask(command, instead)
        if isinstance(reply, Unanswered | RedisError | OSError):
            raise StoreAway(self._judged(reply))
        self._guard.succeeded()
        return reply

    def _judged(self, error: Unanswered | RedisError | OSError) -> str:
        """Count what went wrong, and say it."""
        reason = self._reason(error)
        match error:
            case Unanswered():
                if error.blames_redis:
                    self._failed(reason)
            case ResponseError() if not _is_unavailable(error):
                self._guard.last_error = reason
            case ResponseError():
                self._renew()  # what is demoted or full may be somewhere else when it is looked up again
                self._failed(reason)
            case _:
                self._failed(reason)
        return reason

    def _renew(self) -> None:
        self._small.renew()
        self._bulk.renew()

    def _reason(self, error: BaseException) -> str:
        said = " ".join(str(error).split()) or "no answer"
        kind = "" if isinstance(error, Unanswered) else f"{type(error).__name__}: "
        return redact.text(kind + said, self._address.secrets)[:ERROR_CHARS_MAX]

    def _failed(self, reason: str) -> None:
        if self._guard.failed(reason, self._wall()):
            self._go_down()

    def _go_down(self) -> None:
        self._up.clear()
        self._tell()
        self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """At once, for it may have been a moment only; then, and if it falls again, once an interval."""
        why = f"Redis at {self._address.shown} is away: {self._guard.last_error}"
        await self._small.drop(why)
        await self._bulk.drop(why)
        loop = asyncio.get_running_loop()
        while not self._guard.up:
            await asyncio.sleep(self._probed_at + self._probe_s - loop.time())
            self._probed_at = loop.time()
            error = await self._tried()
            if error is None:
                self._guard.recovered()
                self._up.set()
                self._tell()
            else:
                self._guard.last_error = error

    def _tell(self) -> None:
        if self._told is not None:
            self._told(self.state)

    async def _tried(self) -> str | None:
        """Open a connection and write something in time. None, and the connection is kept; or what went wrong."""
        self._renew()
        failed: Unanswered | RedisError | OSError | None = await self._small.open()
        if failed is None:
            reply = await self._small.ask(("SET", self.key("probe"), "1", "PX", 1000))
            failed = reply if isinstance(reply, Unanswered | RedisError | OSError) else None
        return None if failed is None else self._reason(failed)


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
