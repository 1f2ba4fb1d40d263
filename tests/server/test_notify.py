"""What systemd is told, on a real datagram socket."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.server.notify import READY, STOPPING, notify
from tests.gateway import get
from tests.server.process import config_file, serving


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "a supervisor"])
async def test_a_service_says_when_it_is_ready_and_when_it_stops(
    tmp_path: Path, manager: socket.socket, workers: tuple[str, ...]
) -> None:
    """Once each, and by the process that the manager started."""
    config = config_file(tmp_path, "routes: {}")
    arguments = ("--config", config, "--demo", "--grace", "0s", *workers)
    with serving(*arguments, environ={"NOTIFY_SOCKET": manager.getsockname()}) as (process, port, _):
        assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
        assert (await get(port, "/health/ready")).status == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"
        assert await asyncio.to_thread(process.wait, 10) == 0


@pytest.mark.parametrize("state", [READY, STOPPING])
def test_an_abstract_address(state: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses one in the abstract namespace
        name = listening.getsockname()
        listening.settimeout(10)
        assert notify(state, {"NOTIFY_SOCKET": f"@{name[1:].decode()}"})
        assert listening.recv(100) == state.encode()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/nowhere/at/all", "@nobody-listens-here"])
def test_nobody_to_tell_is_no_failure(address: str) -> None:
    assert not notify(READY, {"NOTIFY_SOCKET": address})
    assert not notify(READY, {})
