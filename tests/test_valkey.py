"""The launcher of real servers: none outlives its tests, and none can be reached by others."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.valkey import Valkey, serving

_STARTS_ONE = """
import sys, time
from pathlib import Path
from tests.valkey import Valkey
server = Valkey(Path(sys.argv[1]))
server.start()
print(server._process.pid, flush=True)
time.sleep(60)
"""


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", _STARTS_ONE, str(tmp_path / "v")], cwd=root, stdout=subprocess.PIPE
    ) as own:
        assert own.stdout is not None
        pid = int(own.stdout.readline())
        assert psutil.Process(pid).name() == "valkey-server"
        own.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_server_is_private_and_keeps_its_address(own_valkey: Valkey) -> None:
    assert stat.S_IMODE(own_valkey.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(own_valkey.socket.stat().st_mode) == 0o700
    assert own_valkey.send("SET", "a", "1") == b"+OK\r\n"
    assert {address.laddr for address in psutil.net_connections("tcp") if address.status == psutil.CONN_LISTEN} >= {
        ("127.0.0.1", own_valkey.port)
    }
    own_valkey.stop()
    own_valkey.start()
    assert own_valkey.send("GET", "a") == b"$-1\r\n"


def test_nothing_is_left() -> None:
    with serving() as server:
        assert server.send("PING") == b"+PONG\r\n"
        folder = server.folder
    assert not folder.exists()
    assert os.access(folder.parent, os.W_OK)
