"""Where a routing table comes from: the routes file, and what is sealed. Either may change while the process serves."""

from collections.abc import Callable

from proxy.config.resolve import Blueprint
from proxy.core.credential import Vault
from proxy.core.routing import RoutingTable


class TableSource:
    """``read`` reads and checks the file, ``finish`` is what every table still needs; both may take a while.

    Raises `ConfigError`, as ``read`` does.
    """

    def __init__(
        self,
        read: Callable[[], Blueprint],
        finish: Callable[[RoutingTable], RoutingTable],
        open_vault: Callable[[Blueprint], Vault],
    ) -> None:
        self._read = read
        self._finish = finish
        self._plan = read()
        self.vault = open_vault(self._plan)

    def table(self) -> RoutingTable:
        """Of the file as it was last read, and of what is sealed now."""
        return self._finish(self._plan.table(self.vault))

    def read_again(self) -> RoutingTable:
        """Of the file as it is now. Where it raises, nothing has changed."""
        plan = self._read()
        table = self._finish(plan.table(self.vault))
        self._plan = plan
        return table
