"""News of changed virtual keys, by a channel of Redis. It says that there are some; the keys' store has them."""

from collections.abc import Callable

from proxy.stores.redis.connection import RedisConnection


class RedisKeyNews:
    """The port `KeyNews`, on a connection that others use too."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        # Channels are one space for all databases of a server, unlike keys.
        self._channel = connection.key(f"keys:{connection.database}")

    async def tell(self) -> None:
        await self._connection.call("PUBLISH", self._channel, b"changed")

    async def listen(self, told: Callable[[], None]) -> None:
        await self._connection.listen(self._channel, lambda _: told())
