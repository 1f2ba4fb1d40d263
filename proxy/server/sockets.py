"""Sockets that listen, and who takes what comes to them.

asyncio's own server accepts whatever comes until no descriptor is left, and then either turns the loop in vain or (libuv)
closes what it accepted without a word. Here a few connections are taken at a time, and only as long as the server has
room: what is more waits in the kernel's queue. Several processes may accept from one socket.
"""

import asyncio
import contextlib
import resource
import select
import socket
from typing import Final

from proxy.edge.connections import Caps
from proxy.edge.intake import Intake
from proxy.edge.protocol import HttpServer
from proxy.ports import ExchangeLog
from proxy.server.cannot_serve import CannotServe

BACKLOG: Final = 1024
SEND_BUFFER_BYTES: Final = 128 * 1024  # the kernel would let it grow to 4 MiB for a client that reads slowly
DESCRIPTORS_KEPT: Final = 64  # for files, stores, the log, and what is about to be closed
DESCRIPTORS_WANTED: Final = 65_536
CONNECTIONS_MIN: Final = 16
SHARED_FROM: Final = 1024  # connections
FULL_S: Final = 0.25  # so long a full server waits for a connection to go before it closes those that ask nothing
IDLE_S: Final = 1.0  # what has asked nothing for so long may go; what was just accepted has yet to ask
REFUSED_S: Final = 0.2  # after the system gave no connection
TAKEN_AT_ONCE: Final = 64
TOLD_EVERY_S: Final = 60.0


def listener(host: str, port: int, flag: str) -> socket.socket:
    """A socket that is bound and listens. ``flag`` names the port in messages. Raises `CannotServe`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # inherited by what it accepts
    try:
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise CannotServe(
            f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port: penstock serve {flag} {port + 1}"
        ) from None
    made.setblocking(False)
    return made


def raise_descriptors() -> None:
    """Take as many descriptors as the system gives without asking: the hard limit, up to what is wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS says infinity and means 10,240
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def descriptors() -> int:
    """How many this process may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return DESCRIPTORS_WANTED if soft == resource.RLIM_INFINITY else soft


def connections_max(files: int, *, demo: bool = False) -> int:
    """How many clients there may be at once: each may need a second connection, to a provider.

    ``files``: how many descriptors the process may have. ``demo``: the provider is in this process too, and has a third.
    """
    return max((files - DESCRIPTORS_KEPT) // (3 if demo else 2), CONNECTIONS_MIN)


def client_caps(connections: int) -> Caps:
    """Of the room for all, one address leaves a quarter to others; a load balancer is one address for all its clients.

    Where there is little room it is not shared out: whoever finds none waits in the queue.
    """
    return Caps(connections, connections if connections < SHARED_FROM else connections * 3 // 4)


class Acceptor:
    """Accepts for one server, until closed.

    The queue is read in a callback of the loop and not by a task, so that whoever closes this can lose no connection that
    was just accepted.
    """

    def __init__(self, listens: socket.socket, server: HttpServer, log: ExchangeLog, room: "Room") -> None:
        self._listens = listens
        self._server = server
        self._log = log
        self._room = room
        self._taking: set[asyncio.Task[object]] = set()
        self._listening = self._is_refused = self._closed = False
        self.connections = 0

    def start(self) -> None:
        self._room.add(self)
        self._server.on_lost = self._lost
        self.resume()

    def resume(self) -> None:
        if not self._closed and not self._listening:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._listens, self._take)

    def pause(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._listens)

    def close(self) -> None:
        """Listen no more, in this process."""
        self.pause()
        if not self._closed:
            self._closed = True
            self._listens.close()

    def is_wanted(self) -> bool:
        """Whether somebody waits in the queue."""
        if self._closed:
            return False
        waiting = select.poll()
        waiting.register(self._listens, select.POLLIN)
        return bool(waiting.poll(0))

    def close_idle(self, idle_s: float = 0.0) -> None:
        """Close the connections that have asked nothing for so long, and those that are being answered after that."""
        self._server.close_soon(idle_s)

    def _take(self) -> None:
        """What waits in the queue, a few at a time: other processes may accept from it too."""
        for _ in range(TAKEN_AT_ONCE):
            if self._room.is_full():
                self.pause()  # the room has, but for one that was paused for another reason and resumed since
                return
            try:
                connection, _ = self._listens.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # the client left while it waited
            except OSError as error:
                self._refused(error)
                return
            self._is_refused = False
            self.connections += 1
            connection.setblocking(False)
            task = asyncio.create_task(self._hand_over(connection))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _hand_over(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._server, connection)
        except OSError:  # it left at once
            connection.close()
            self._lost()

    def _lost(self) -> None:
        self.connections -= 1
        self._room.lost()

    def _refused(self, error: OSError) -> None:
        """The system has no descriptor or no memory for it. The loop must not turn in vain until it has."""
        if not self._is_refused:
            self._log.event("no connection can be accepted", error=error.strerror or str(error))
        self._is_refused = True
        self.pause()
        asyncio.get_running_loop().call_later(REFUSED_S, self.resume)


class Room:
    """How many connections a process may have at its port, and what happens when it has them and more are wanted.

    While others wait answers close their connections, and those that ask nothing are closed: a client's pool must not keep
    others waiting.
    """

    def __init__(self, connections_max: int, intake: Intake, log: ExchangeLog) -> None:
        self._max = connections_max
        self._intake = intake
        self._log = log
        self._acceptors: list[Acceptor] = []
        self._was_full = False
        self._told_at = -TOLD_EVERY_S

    def add(self, acceptor: Acceptor) -> None:
        self._acceptors.append(acceptor)

    @property
    def connections(self) -> int:
        return sum(one.connections for one in self._acceptors)

    def is_full(self) -> bool:
        """Whether no more may come; then nothing is accepted until one goes."""
        if self.connections < self._max:
            return False
        if not self._was_full:
            self._was_full = True
            for acceptor in self._acceptors:
                acceptor.pause()
            asyncio.get_running_loop().call_later(FULL_S, self._press)
        return True

    def lost(self) -> None:
        """A connection is gone."""
        if self._was_full and self.connections < self._max:
            self._was_full = self._intake.crowded = False
            for acceptor in self._acceptors:
                acceptor.resume()

    def _press(self) -> None:
        if not self._was_full:
            return
        loop = asyncio.get_running_loop()
        loop.call_later(FULL_S, self._press)
        if not any(acceptor.is_wanted() for acceptor in self._acceptors):
            return
        self._intake.crowded = True
        if loop.time() - self._told_at >= TOLD_EVERY_S:
            self._told_at = loop.time()
            self._log.event("full: new connections wait", connections=self.connections)
        for acceptor in self._acceptors:
            acceptor.close_idle(IDLE_S)
