"""Connections to one Redis: each is lent to one exchange of command and reply, and never kept with a reply unread.

redis-py's own pool is not used: one whose user is cancelled while it gives a connection back has lost the slot for good.
Here what must not be split by a cancellation has no `await` in it. A connection whose exchange was cut short is closed,
because nobody knows whose reply comes next on it. One that is being opened outlives who waits for it, so that a server
which is slow to connect to is reached all the same, by the next.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from proxy.stores.redis.address import Address

Command = Sequence[str | bytes | int | float]


class Pool:
    """Concurrency: hold one of `slots` while exchanging; there are as many as there may be connections."""

    def __init__(self, address: Address, size: int, open_s: float) -> None:
        self.slots = asyncio.Semaphore(size)
        self.size = size
        self._address = address
        self._open_s = open_s
        self._idle: list[AbstractConnection] = []
        self._opening: set[asyncio.Task[AbstractConnection]] = set()
        self._unclaimed: set[asyncio.Task[AbstractConnection]] = set()  # of those: who waited for it has gone
        self._closed = False

    async def exchange(self, command: Command, instead: Command | None = None) -> Any:
        """Send one command and read its reply; `instead` is sent where the command's script is not known any more."""
        connection = await self._take()
        try:
            reply = await _reply(connection, command, instead)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        await self.give(connection)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def give(self, connection: AbstractConnection) -> None:
        """Keep a connection on which nothing is outstanding."""
        if self._closed or not connection.is_connected or len(self._idle) >= self.size:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)

    async def drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        self._closed = True
        for task in tuple(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.sleep(0)  # what has been opened at the last moment lands
        await self.drop_idle()

    async def _take(self) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()
            if not await _is_spent(connection):
                return connection
            await connection.disconnect(nowait=True)
        return await self._opened()

    async def _opened(self) -> AbstractConnection:
        """One that is being opened, preferably for somebody who waits no more: so there are never more than slots."""
        task = self._unclaimed.pop() if self._unclaimed else self._open()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._unclaimed.add(task)
            task.add_done_callback(self._landed)
            raise

    def _open(self) -> asyncio.Task[AbstractConnection]:
        task = asyncio.get_running_loop().create_task(self._address.open(self._open_s))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return task

    def _landed(self, task: asyncio.Task[AbstractConnection]) -> None:
        """It is opened, or has failed; if nobody has claimed it meanwhile, it is kept."""
        if task in self._unclaimed:
            self._unclaimed.discard(task)
            if not task.cancelled() and task.exception() is None:
                self._idle.append(task.result())


async def _is_spent(connection: AbstractConnection) -> bool:
    """Whether an idle connection has something to read: its end, or a reply that is nobody's."""
    try:
        return bool(await connection.can_read())
    except RedisError:
        return True


async def _reply(connection: AbstractConnection, command: Command, instead: Command | None) -> Any:
    """The reply that has been read whole, an error reply too."""
    reply = await _ask(connection, command)
    return await _ask(connection, instead) if isinstance(reply, NoScriptError) and instead is not None else reply


async def _ask(connection: AbstractConnection, command: Command) -> Any:
    await connection.send_command(*command, check_health=False)
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
