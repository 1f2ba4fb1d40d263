import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import uvloop

from proxy.server import build
from proxy.server.outbox import Outbox
from proxy.simulator.server import Simulator
from tests.aftermath import pytest_runtest_makereport, pytest_runtest_teardown
from tests.gateway import Connection, Gateway, start_gateway
from tests.postgres import Postgres
from tests.valkey import Valkey, ValkeyCluster, clustered, serving

__all__ = ["pytest_runtest_makereport", "pytest_runtest_teardown"]  # hooks of every test

Start = Callable[..., Awaitable[Gateway]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that serves."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def recordings() -> Path:
    """The folder of recorded provider answers; where there is none, the test is skipped and says so."""
    folder = os.environ.get("PENSTOCK_RECORDINGS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no recorded provider answers: set PENSTOCK_RECORDINGS to their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def _shared_valkey() -> Iterator[Valkey]:
    with serving() as server:
        yield server


@pytest.fixture
def valkey(_shared_valkey: Valkey) -> Valkey:
    """A real server, empty. Others use it too: it is neither stopped nor paused."""
    _shared_valkey.flush()
    return _shared_valkey


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[ValkeyCluster]:
    """A real Cluster of three masters, as the tests before left it. Its nodes are not stopped."""
    with clustered() as cluster:
        yield cluster


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A real server that this test may do anything to."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests, started when the first wants it."""
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    return await postgres.new_database()


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    simulator = Simulator(record=2000)
    yield simulator
    await simulator.stop()


@pytest.fixture
async def upstream_url(upstream: Simulator) -> str:
    return await upstream.start()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts gateways from a configuration text, and stops them after the test."""

    async def started(config: str, **options: object) -> Gateway:
        gateway = await start_gateway(config, **options)  # type: ignore[arg-type] # handed through as they are
        running.push_async_callback(gateway.stop)
        return gateway

    async with AsyncExitStack() as running:
        yield started
        Connection.close_all()
    for _ in range(5):
        await asyncio.sleep(0)  # what was just closed gives its sockets back in the loop's next turns


@pytest.fixture
def rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are in the ledger at once, where what gathers them for a quarter of a second is not what is tested."""
    monkeypatch.setattr(build, "Outbox", partial(Outbox, batch_s=0.01))


@pytest.fixture
async def gateway(start: Start, upstream_url: str) -> Gateway:
    """Penstock before one upstream: `sim/<script>` chooses what it does."""
    return await start(
        f"""
providers:
  sim: {{like: vllm, base_url: "{upstream_url}"}}
defaults:
  timeouts: {{connect: 1s, first_event: 600ms, idle: 500ms, silent: 900ms, total: 5s}}
routes:
  plain: {{tiers: [sim/plain]}}
"""
    )
