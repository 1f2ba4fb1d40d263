"""One guarded connection to Redis for all stores of a process, whether Redis is one server, has sentinels or is a Cluster.

Every operation is over `DEADLINE_S` after Redis fell silent, whatever it does, opening a connection included; while it
answers others, in `pipe.CROWD` deadlines. Where nothing comes back nothing is asked any more, and operations fail at once:
`server` says when, for one server, and `cluster` how that is with several, each by itself. What callers see is a reply or
`StoreAway`, never an exception of redis-py. A deadline that passes leaves open whether the command was carried out: nothing
is sent twice.

On a Cluster a script goes where its first key is, which all its keys must share, and a command where the word after its name
is: its key, or for PUBLISH its channel. What has neither goes to any node.

Costs 24 to 30 us of CPU for a script that is run alone, 11 to 13 us in bursts of 16 or more (redis-py 8.1's Python parser,
uvloop, on the machine where a connection an operation cost 27 to 37 us either way). 500 reservations at once take 25 to 35
ms in one book each and 50 to 70 ms in four, of which Redis has half. On a Cluster an operation costs 3 to 4 us more. Other
work on the machine can double all of these.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from proxy.ports import StoreState
from proxy.stores.redis import address as addresses
from proxy.stores.redis.alone import Alone
from proxy.stores.redis.cluster import Cluster
from proxy.stores.redis.server import OPEN_S

DEADLINE_S: Final = 0.02
PROBE_S: Final = 1.0
HEARTBEAT_S: Final = 5.0  # a channel that is silent for so long is asked whether it is still there


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
        address = addresses.parse(url)
        self._database = address.database
        self._prefix = prefix
        self._probe_s = probe_s
        self._told = told
        self._was_up = True
        self._servers: Alone | Cluster = (Cluster if address.cluster else Alone)(
            address,
            probe_name=self.key("probe"),
            wall=wall,
            deadline_s=deadline_s,
            probe_s=probe_s,
            noticed=self._noticed,
        )

    @property
    def state(self) -> StoreState:
        """Of a Cluster: away while some of the keys that were asked for cannot be had."""
        return self._servers.state

    @property
    def database(self) -> int:
        return self._database

    def key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    async def start(self, *, everywhere: bool = False) -> None:
        """Find out how Redis is, so that no request has to. Takes at most `OPEN_S`, on a Cluster twice that.

        ``everywhere``: by every node of a Cluster, and not only by one that says where the others are.
        """
        await self._servers.start(everywhere=everywhere)

    async def close(self) -> None:
        await self._servers.close()

    async def call(self, *command: str | bytes | int | float, bulk: bool = False) -> Any:
        """Send one command. Shapes: strings of the reply are bytes. Raises `StoreAway`.

        ``bulk``: there or back it may carry more than 64 KiB; in order with others of its kind only.
        """
        key = command[1] if len(command) > 1 else None
        return await self._servers.ask(key if isinstance(key, str | bytes) else None, command, None, bulk=bulk)

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
        by_digest, whole = ("EVALSHA", script.digest, *rest), ("EVAL", script.source, *rest)
        return await self._servers.ask(keys[0] if keys else None, by_digest, whole, bulk=bulk)

    async def listen(self, channel: str, told: Callable[[bytes | None], None]) -> None:
        """Call `told` with every message, until cancelled. None: from now on; what came before may have been missed."""
        while True:
            address, is_there = await self._servers.place(channel)
            try:
                connection = await address.open(OPEN_S)
                try:
                    await _subscribed(connection, channel, told, is_there)
                finally:
                    await connection.disconnect(nowait=True)
            except (RedisError, OSError) as error:
                self._servers.noted(error)
            await asyncio.sleep(self._probe_s)

    def _noticed(self) -> None:
        """Say it, if Redis went away or is back."""
        state = self._servers.state
        if state.up != self._was_up:
            self._was_up = state.up
            if self._told is not None:
                self._told(state)


async def _subscribed(
    connection: AbstractConnection, channel: str, told: Callable[[bytes | None], None], is_there: Callable[[], bool]
) -> None:
    """Read a channel until it is to be read elsewhere. Raises redis-py's errors, `OSError`."""
    await connection.send_command("SUBSCRIBE", channel, check_health=False)
    asked = True  # whether something must come in time
    while is_there():
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
