"""Redis where it is one server, or the one that sentinels name: everything is asked there."""

from collections.abc import Callable
from typing import Any

from proxy.ports import StoreState
from proxy.stores.redis.address import Address
from proxy.stores.redis.pipe import Command
from proxy.stores.redis.server import Server


class Alone:
    """As `cluster.Cluster` is used, so that nobody minds which of the two there is."""

    def __init__(
        self,
        address: Address,
        *,
        probe_name: str,
        wall: Callable[[], float],
        deadline_s: float,
        probe_s: float,
        noticed: Callable[[], None],
    ) -> None:
        self._server = Server(
            address,
            probe_key=lambda: probe_name,
            wall=wall,
            deadline_s=deadline_s,
            probe_s=probe_s,
            noticed=lambda _: noticed(),
        )

    @property
    def state(self) -> StoreState:
        return StoreState(self._server.address.shown, self._server.down_since, self._server.last_error)

    async def start(self, *, everywhere: bool = False) -> None:  # noqa: ARG002 - there is one
        await self._server.start()

    async def close(self) -> None:
        await self._server.close()

    async def ask(self, key: str | bytes | None, command: Command, instead: Command | None, *, bulk: bool) -> Any:  # noqa: ARG002 - likewise
        return await self._server.ask(command, instead, bulk=bulk)

    async def place(self, channel: str) -> tuple[Address, Callable[[], bool]]:  # noqa: ARG002 - likewise
        await self._server.is_up()
        return self._server.address, lambda: True

    def noted(self, error: BaseException) -> None:
        self._server.noted(error)
