"""The event bus in Redis: one channel, which anybody may subscribe to."""

from collections.abc import Callable

from proxy.stores.redis.connection import RedisConnection

CHANNEL = "events"  # `penstock:events`; channels are one space for all databases of a server


class RedisEvents:
    """On a connection that others use too."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._channel = connection.key(CHANNEL)

    async def publish(self, event: bytes) -> None:
        await self._connection.call("PUBLISH", self._channel, event)

    async def listen(self, told: Callable[[bytes | None], None]) -> None:
        await self._connection.listen(self._channel, told)
