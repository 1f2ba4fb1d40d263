"""Which node of a Cluster has which slot, as one of its nodes told it. Decides nothing, asks nobody.

Deliberately not handled: replicas, which are not asked, and which of two maps is the newer one: nodes do not say. Who
follows an old one is sent on by MOVED. Held by `tests/stores/redis/test_slots.py`.
"""

from typing import Any, Final

from redis.cluster import parse_cluster_slots
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import InvalidResponse

Node = tuple[str, int]
_NO_NAMES: Final = ("", "?")  # of a node whose name is not known to the one that tells: it is where that one was asked


class SlotMap:
    """``nodes``: those that have slots. ``is_whole``: somebody has each of them."""

    __slots__ = ("_owners", "is_whole", "nodes")

    def __init__(self, owners: list[Node | None]) -> None:
        self._owners = owners
        self.nodes = frozenset(node for node in owners if node is not None)
        self.is_whole = None not in owners

    @classmethod
    def of(cls, reply: Any, asked: Node) -> "SlotMap":
        """Of CLUSTER SLOTS. Raises `InvalidResponse`.

        Source: https://valkey.io/commands/cluster-slots/ (2026-11-21)
        """
        owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        try:
            for (first, last), told in parse_cluster_slots(reply, current_host=asked[0]).items():
                host, port = told["primary"]
                node = (asked[0] if host in _NO_NAMES else str(host), int(port))
                owners[first : last + 1] = [node] * (last + 1 - first)
        except (TypeError, ValueError, IndexError):
            raise InvalidResponse("what it says of its slots cannot be read") from None
        if len(owners) != REDIS_CLUSTER_HASH_SLOTS or not any(owners):
            raise InvalidResponse("it knows of no node that has slots")
        return cls(owners)

    def owner(self, slot: int) -> Node | None:
        return self._owners[slot]

    def moved(self, slot: int, node: Node) -> "SlotMap":
        """The same but for one slot, which has moved."""
        owners = list(self._owners)
        owners[slot] = node
        return SlotMap(owners)

    def key_at(self, node: Node, name: str) -> str:
        """A key of which this node has the slot; of a node without slots, any."""
        for number in range(8 * REDIS_CLUSTER_HASH_SLOTS if node in self.nodes else 0):
            key = f"{name}:{{{number}}}"
            if self._owners[key_slot(key.encode())] == node:
                return key
        return name


def slot_of(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)
