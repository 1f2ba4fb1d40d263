"""The nodes of a Redis Cluster: who has which slot, and one guarded `Server` for each that was asked.

A command goes to the node that has its key's slot. Where that node says MOVED the slot is remembered to be elsewhere, and
where it says ASK the other one is asked this once: in both cases nothing was carried out, so the command is sent on, in the
time that is left of its deadline, and `SENT_ON_MAX` times at most. Nothing else is ever repeated. What one asks at the same
time may change its order by that.

*The map* is looked for at the start, and when a node sent on, failed, or has been replaced: once a second at most, and again
every second while something is the matter; and once in `AGAIN_S`, because who publishes is never sent on. Up to `LOOKED_AT`
nodes are asked at once, by connections of their own, and the first is believed that finds the Cluster well: a hung node
delays nobody, and one that was cut off says that it is. Those of the URL take their turns too, by name, because all
addresses may have changed.

*Guards* are the nodes' own: what fails at one is not held against the others, whose slots are served on. `state` is that of
the keys as a whole: away since the first of the nodes went away that have slots and were needed; `last_error` names the one
that failed last. A node that has lost its slots counts no more, so a failover ends it. Without any map all is away.

States: no map yet (callers wait a deadline for the first), lost (looked for and not found: callers fail at once), known.
Deliberately not handled: reading from replicas, databases other than 0, clusters that announce addresses by which this
process cannot reach them. Held by `tests/stores/redis/test_cluster.py`, on real nodes.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, MovedError, RedisError

from proxy.ports import StoreAway, StoreState
from proxy.stores.redis import server as servers
from proxy.stores.redis.address import Address
from proxy.stores.redis.pipe import Command
from proxy.stores.redis.server import Server
from proxy.stores.redis.slots import Node, SlotMap, slot_of

LOOKED_AT: Final = 5
AGAIN_S: Final = 30.0
SENT_ON_MAX: Final = 4  # a slot that moves on while it is followed; more is a circle
_WELL: Final = b"cluster_state:ok"


class Cluster:
    """Used in one event loop. `start` may be left out, `close` may not."""

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
        """``noticed`` is called when `state` may have changed, in the event loop, and must not raise."""
        self._address = address
        self._probe_name = probe_name
        self._wall = wall
        self._deadline_s = deadline_s
        self._probe_s = probe_s
        self._tell = noticed
        self._slots: SlotMap | None = None
        self._servers: dict[Node, Server] = {}
        self._used: set[Node] = set()  # since the last look
        self._lost_since: float | None = None
        self._unserved_since: float | None = None  # nobody has a slot that was needed
        self._last_error: str | None = None
        self._looked = asyncio.Event()  # for the first time
        self._looked_at = float("-inf")
        self._looks = 0
        self._wanted = False
        self._keeping: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def state(self) -> StoreState:
        since = [self._lost_since, self._unserved_since]
        if self._slots is not None:
            since += [one.down_since for node, one in self._servers.items() if node in self._slots.nodes]
        return StoreState(
            self._address.shown, min((at for at in since if at is not None), default=None), self._last_error
        )

    async def start(self, *, everywhere: bool = False) -> None:
        """Find the Cluster, and out how one node of it is; or ``everywhere``, each. Takes at most twice `OPEN_S`."""
        self._looked_at = asyncio.get_running_loop().time()
        await self._look()
        if self._slots is not None:
            first = self._slots.owner(slot_of(self._probe_name))
            nodes = self._slots.nodes if everywhere or first is None else {first}
            await asyncio.gather(*(self._server(node).start() for node in nodes))
        if self._is_unsettled():
            self._look_soon()

    async def close(self) -> None:
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self._servers.values()), *self._closing)

    async def ask(self, key: str | bytes | None, command: Command, instead: Command | None, *, bulk: bool) -> Any:
        """Send one command to the node that has `key`, or to any. Raises `StoreAway`."""
        began = asyncio.get_running_loop().time()
        if began > self._looked_at + AGAIN_S:
            self._look_soon()
        server = self._at(self._slots or await self._found(), key)
        reply = await server.ask(command, instead, bulk=bulk)
        if not isinstance(reply, AskError):
            return reply
        try:
            async with asyncio.timeout_at(began + self._deadline_s):
                return await self._sent_on(server, reply, command, instead, bulk=bulk)
        except TimeoutError:
            raise StoreAway(f"no answer within {self._deadline_s * 1000:.0f} ms where the slot has moved to") from None

    async def place(self, channel: str) -> tuple[Address, Callable[[], bool]]:
        """Where to listen to a channel, and whether that is still so. Waits until there is such a node.

        What is published anywhere is told by every node. But where the slot of the channel's name is most of it is
        published, and that way is the shortest.
        """
        while True:
            with suppress(StoreAway):
                server = self._at(self._slots or await self._found(), channel)
                if server.up:
                    return server.address, partial(self._is_at, server, channel)
            await asyncio.sleep(self._probe_s)

    def noted(self, error: BaseException) -> None:
        """A channel has ended."""
        self._last_error = servers.reason(error, self._address)
        self._look_soon()

    # Routing.

    async def _found(self) -> SlotMap:
        """The map; the first is waited for. Raises `StoreAway`."""
        if self._lost_since is None and not self._closed:
            self._look_soon()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._looked.wait(), self._deadline_s)
            if self._slots is None and self._lost_since is None:
                self._lost_since = self._wall()  # the next do not wait for it
                self._tell()
        if self._slots is None:
            raise StoreAway(f"Redis at {self._address.shown} is away: {self._last_error or 'not found yet'}")
        return self._slots

    def _at(self, slots: SlotMap, key: str | bytes | None) -> Server:
        """Raises `StoreAway`: nobody has the slot."""
        if key is None:
            return self._server(min(slots.nodes, key=lambda node: (self._is_away(node), node)))
        slot = slot_of(key)
        node = slots.owner(slot)
        if node is None:
            self._last_error = f"no node has slot {slot}"
            self._unserved_since = self._unserved_since or self._wall()
            self._look_soon()
            self._tell()
            raise StoreAway(f"Redis at {self._address.shown}: {self._last_error}")
        return self._server(node)

    def _is_away(self, node: Node) -> bool:
        return node in self._servers and not self._servers[node].up

    def _server(self, node: Node) -> Server:
        self._used.add(node)
        server = self._servers.get(node)
        if server is None:
            server = self._servers[node] = Server(
                self._address.of_node(node),
                probe_key=lambda: (
                    self._probe_name if self._slots is None else self._slots.key_at(node, self._probe_name)
                ),
                wall=self._wall,
                deadline_s=self._deadline_s,
                probe_s=self._probe_s,
                noticed=self._noticed,
                is_node=True,
            )
        return server

    def _is_at(self, server: Server, channel: str) -> bool:
        owner = None if self._slots is None else self._slots.owner(slot_of(channel))
        return owner is None or self._servers.get(owner) is server

    async def _sent_on(
        self, server: Server, reply: AskError, command: Command, instead: Command | None, *, bulk: bool
    ) -> Any:
        for _ in range(SENT_ON_MAX):
            node = (reply.host or server.address.hosts[0][0], reply.port)  # without a host: on the same
            is_moved = isinstance(reply, MovedError)
            if is_moved and self._slots is not None and self._slots.owner(reply.slot_id) != node:
                self._slots = self._slots.moved(reply.slot_id, node)
                self._look_soon()
            server = self._server(node)
            came = await server.ask(command, instead, bulk=bulk, asking=not is_moved)
            if not isinstance(came, AskError):
                return came
            reply = came
        raise StoreAway(f"Redis at {self._address.shown} sends on in a circle: {reply}")

    def _noticed(self, server: Server) -> None:
        """Something failed, or came back."""
        if server.last_error is not None:
            host, port = server.address.hosts[0]
            self._last_error = f"{host}:{port}: {server.last_error}"
        if not self._closed:
            self._look_soon()
        self._tell()

    # The map.

    def _is_unsettled(self) -> bool:
        """Whether there is a reason to look again."""
        state = self.state
        strays = self._slots is not None and not self._slots.nodes >= self._servers.keys()
        return self._wanted or not state.up or strays

    def _look_soon(self) -> None:
        self._wanted = True
        if self._keeping is None and not self._closed:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Look at once, if that was not done within the interval; then once an interval while there is a reason to."""
        loop = asyncio.get_running_loop()
        try:
            while self._is_unsettled():
                await asyncio.sleep(self._looked_at + self._probe_s - loop.time())
                self._looked_at = loop.time()
                self._wanted = False
                await self._look()
        finally:
            self._keeping = None

    async def _look(self) -> None:
        found = await self._asked_of(self._candidates())
        if isinstance(found, SlotMap):
            self._take(found)
        else:
            self._last_error = found
            if self._slots is None and self._lost_since is None:
                self._lost_since = self._wall()
        self._looked.set()
        self._tell()

    def _candidates(self) -> list[Node]:
        """Whom to ask: those of the URL and those known, in turns; of nodes that are away only where there are no others."""
        known = sorted(() if self._slots is None else self._slots.nodes)
        nodes = list(dict.fromkeys((*self._address.hosts, *known)))
        there = [node for node in nodes if not self._is_away(node)] or nodes
        start = self._looks % len(there)
        self._looks += 1
        return (there[start:] + there[:start])[:LOOKED_AT]

    async def _asked_of(self, nodes: list[Node]) -> SlotMap | str:
        """The map of the first that finds the Cluster well; else of one that does not; else what went wrong."""
        asking = [asyncio.create_task(self._map_of(node)) for node in nodes]
        unwell: SlotMap | None = None
        error = "no answer"
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    found, is_well = await answer
                except (RedisError, OSError) as failed:
                    error = servers.reason(failed, self._address)
                    continue
                if is_well:
                    return found
                unwell = found
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return error if unwell is None else unwell

    async def _map_of(self, node: Node) -> tuple[SlotMap, bool]:
        """Raises redis-py's errors, `OSError`."""
        async with asyncio.timeout(servers.OPEN_S):
            connection = await self._address.of_node(node).open(servers.OPEN_S)
            try:
                is_well = _WELL in bytes(await _answered(connection, "CLUSTER", "INFO"))
                return SlotMap.of(await _answered(connection, "CLUSTER", "SLOTS"), node), is_well
            finally:
                await connection.disconnect(nowait=True)

    def _take(self, slots: SlotMap) -> None:
        """From now on this is so. Who has no slots any more and is away, or not asked, is let go."""
        self._slots = slots
        self._lost_since = None
        if slots.is_whole:
            self._unserved_since = None
        for node, server in list(self._servers.items()):
            if node not in slots.nodes and (node not in self._used or not server.up):
                del self._servers[node]
                closing = asyncio.get_running_loop().create_task(server.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        self._used.clear()


async def _answered(connection: AbstractConnection, *command: str) -> Any:
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()
