"""One server of Redis, guarded: two pipes to it, and whether it is asked at all.

An operation is over a deadline after the server fell silent, and until something is answered the next are over in half of
one. After five failures in a row nothing is sent any more and operations fail at once, until a probe, one a second, has
written something in time: a server that answers but takes no writes (a replica, one out of memory, one that loads) is of no
use. Callers see a reply or `StoreAway`, never an exception of redis-py. A deadline that passes leaves open whether the
command was carried out: nothing is sent twice.

`pipe` carries the commands of all callers. Large values have a pipe of their own, opened when there is the first. Beside 32
that are written at once, 1 MiB each, an ECHO took 0.6 to 0.7 ms (the median), and 25 to 50 ms in the same pipe.

Held by `tests/stores/redis/test_connection.py`, and as a node of a Cluster by `test_cluster.py`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import AskError, RedisError, ResponseError, TryAgainError

from proxy.core import redact
from proxy.ports import StoreAway
from proxy.stores.redis.address import Address
from proxy.stores.redis.guard import Guard
from proxy.stores.redis.pipe import TICKS, Command, Pipe, Unanswered

TICKS_AGAIN: Final = TICKS // 2  # after a failure: a request that asks three times waits for two deadlines at most
OPEN_S: Final = 1.0  # to open a connection, across a network and with TLS; who waits for it waits for a deadline
ERROR_CHARS_MAX: Final = 200

# Error replies of a server that is there and cannot serve. All others are of this one command.
_UNAVAILABLE: Final = frozenset(
    {"ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM", "NOREPLICAS"}
    | {"OOM", "READONLY", "TRYAGAIN", "UNKILLABLE"}
)


class Server:
    """Used in one event loop. `start` may be left out, `close` may not."""

    def __init__(
        self,
        address: Address,
        *,
        probe_key: Callable[[], str],
        wall: Callable[[], float],
        deadline_s: float,
        probe_s: float,
        noticed: Callable[["Server"], None],
        is_node: bool = False,
    ) -> None:
        """``probe_key``: what a probe may write to.

        ``noticed`` is called after every failure and every change of `up`, in the event loop, and must not raise.
        ``is_node``: somebody knows the Cluster that it is of, and follows where it sends on.
        """
        self.address = address
        self._probe_key = probe_key
        self._wall = wall
        self._probe_s = probe_s
        self._noticed = noticed
        self._is_node = is_node
        self._guard = Guard()
        self._small, self._bulk = (Pipe(address, open_s=OPEN_S, deadline_s=deadline_s) for _ in range(2))
        self._up = asyncio.Event()
        self._up.set()
        self._probing: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")

    @property
    def up(self) -> bool:
        return self._guard.up

    @property
    def down_since(self) -> float | None:
        return self._guard.down_since

    @property
    def last_error(self) -> str | None:
        return self._guard.last_error

    async def is_up(self) -> None:
        """Wait until it is."""
        await self._up.wait()

    async def start(self) -> None:
        """Find out how it is, so that no request has to. Takes at most `OPEN_S`."""
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

    async def ask(self, command: Command, instead: Command | None, *, bulk: bool = False, asking: bool = False) -> Any:
        """Send one command. Raises `StoreAway`. Of a node, an `AskError` or `MovedError` is a reply: it did nothing.

        ``asking``: it is told that whoever asks was sent here by ASK.
        """
        if not self._guard.up:
            raise StoreAway(f"Redis at {self.address.shown} is away: {self._guard.last_error}")
        reply = await (self._bulk if bulk else self._small).ask(command, instead, asking=asking)
        if isinstance(reply, Unanswered | RedisError | OSError) and not self._sends_on(reply):
            raise StoreAway(self._judged(reply))
        self._guard.succeeded()
        if self._small.patience != TICKS:
            self._wait_for(TICKS)
        return reply

    def noted(self, error: BaseException) -> None:
        """Something that went wrong beside the pipes."""
        self._guard.last_error = self._reason(error)

    def _sends_on(self, reply: Any) -> bool:
        return self._is_node and isinstance(reply, AskError)

    def _judged(self, error: Unanswered | RedisError | OSError) -> str:
        """Count what went wrong, and say it."""
        reason = self._reason(error)
        match error:
            case Unanswered():
                if error.blames_redis:
                    self._failed(reason)
            case TryAgainError() if self._is_node:
                self._guard.last_error = reason  # of keys that are moving; its others can be had
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
        return reason(error, self.address)

    def _failed(self, why: str) -> None:
        if self._guard.failed(why, self._wall()):
            self._go_down()
        else:
            self._wait_for(TICKS_AGAIN)
            self._noticed(self)

    def _wait_for(self, ticks: int) -> None:
        self._small.patience = self._bulk.patience = ticks

    def _go_down(self) -> None:
        self._wait_for(TICKS)
        self._up.clear()
        self._noticed(self)
        self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """At once, for it may have been a moment only; then, and if it falls again, once an interval."""
        why = f"Redis at {self.address.shown} is away: {self._guard.last_error}"
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
                self._noticed(self)
            else:
                self._guard.last_error = error

    async def _tried(self) -> str | None:
        """Open a connection and write something in time. None, and the connection is kept; or what went wrong."""
        self._renew()
        failed: Unanswered | RedisError | OSError | None = await self._small.open()
        if failed is None:
            reply = await self._small.ask(("SET", self._probe_key(), "1", "PX", 1000))
            # A node that sends on serves others, whatever this one key's slot is about to do.
            is_failed = isinstance(reply, Unanswered | RedisError | OSError) and not self._sends_on(reply)
            failed = reply if is_failed else None
        return None if failed is None else self._reason(failed)


def reason(error: BaseException, address: Address) -> str:
    """What is told of an error: short, on one line, without the secrets of the address."""
    said = " ".join(str(error).split()) or "no answer"
    kind = "" if isinstance(error, Unanswered) else f"{type(error).__name__}: "
    return redact.text(kind + said, address.secrets)[:ERROR_CHARS_MAX]


def _is_unavailable(error: ResponseError) -> bool:
    code = error.status_code or str(error).partition(" ")[0]
    return code in _UNAVAILABLE
