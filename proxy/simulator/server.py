"""The simulator's public face."""

import asyncio
from collections import deque
from typing import Final

from proxy.simulator import endpoints
from proxy.simulator.connection import Connection
from proxy.simulator.intake import Intake
from proxy.simulator.memory import Memory
from proxy.simulator.reader import Request

_BACKLOG: Final = 4096  # a thousand streams may be opened at once; the kernel's own bound is net.core.somaxconn


class Simulator:
    """A scripted provider on a loopback socket.

    ``requests`` holds the last `record` of them (0: none, for the demo and benchmarks), each with what became of it, from
    when its head has come; of an upload's body only the beginning, the length and the hash are kept. ``served`` counts all
    since the last `clear`. Concurrency: start, stop and use on one event loop.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, record: int = 0) -> None:
        self.requests: deque[Request] = deque(maxlen=record)
        self.served = 0
        self._host = host
        self._port = port
        self._memory = Memory()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def connections_open(self) -> int:
        return len(self._connections)

    async def start(self) -> str:
        """Its base URL, such as ``http://127.0.0.1:40123/v1``. Errors: OSError where the port cannot be bound."""
        if self._server is not None:
            raise RuntimeError("the simulator is started already")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._begin, self._connections, loop), self._host, self._port, backlog=_BACKLOG
        )
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        """Closes the port and every connection, whatever is being answered. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in tuple(self._connections):
            connection.abort()
        await server.wait_closed()
        await asyncio.sleep(0)  # the aborted transports close their sockets in the loop's next turn

    def clear(self) -> None:
        """Forgets what was recorded, what `once` remembers, and the files and batches."""
        self.requests.clear()
        self._memory.clear()
        self.served = 0

    def _begin(self, request: Request) -> Intake:
        self.served += 1
        self.requests.append(request)
        return endpoints.begin(request, self._memory)
