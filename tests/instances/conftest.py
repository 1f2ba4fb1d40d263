"""One pair for all tests that leave it as it was. They run in one loop, with the servers that they share."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.simulator.server import Simulator
from tests.gateway import port_of
from tests.instances.balancer import Backend, Balancer
from tests.instances.pair import Pair, chat, serving
from tests.money.held import Held
from tests.money.stage import IN, OUT, PRICE, USD
from tests.postgres import Postgres
from tests.valkey import Valkey
from tests.valkey import serving as serving_valkey

FITS = 142
LONG_S = 60.0
CAP = 100  # of output tokens: what `chat` asks for
HELD = chat("held/m")
WORST = -(-len(HELD) // 2) * IN + CAP * OUT  # of that request
COOLDOWN_S = 3.0


@dataclass(slots=True)
class World:
    """``wire``: what provider `wired` is reached through."""

    simulator: Simulator
    wire: Balancer
    held: Held
    config: str
    environ: dict[str, str]

    def asked(self, model: str) -> int:
        """How often the simulator was asked for a model."""
        return sum(f'"model":"{model}"'.encode() in one.body for one in self.simulator.requests)


def config(simulator_url: str, wire_port: int, held_url: str) -> str:
    price = f'price: {{"*": {PRICE}}}'
    cap_usd = f"{(FITS * WORST + WORST // 2) / USD:.9f}"
    return f"""
access: {{mode: keys}}
providers:
  sim: {{like: vllm, base_url: "{simulator_url}", {price}}}
  wired: {{like: vllm, base_url: "http://127.0.0.1:{wire_port}/v1", {price}}}
  held: {{like: vllm, base_url: "{held_url}", {price}}}
defaults:
  timeouts: {{connect: 5s, first_event: 60s, idle: 60s, silent: 60s, total: 60s}}
  retry: {{attempts: 1, max: 10ms}}
  breaker: {{cooldown: {COOLDOWN_S:.0f}s}}
routes:
  kept: {{tiers: ["sim/tokens:10:20"], cache: {{ttl: 1h}}}}
  shared: {{tiers: ["sim/delay:1s"], cache: {{ttl: 1h}}}}
  led: {{tiers: ["sim/delay:2500ms"], cache: {{ttl: 1h}}}}
accounts:
  capped: {{budgets: {{daily: {cap_usd}}}}}
  rich: {{budgets: {{daily: 1000}}}}
"""


@pytest.fixture(scope="package")
def redis() -> Iterator[Valkey]:
    with serving_valkey() as server:
        yield server


@pytest.fixture(scope="package")
def _database(postgres: Postgres) -> str:
    """The URL of an empty database, made in a loop of its own: the tests' may run already."""
    made: list[str] = []
    thread = threading.Thread(target=lambda: made.append(asyncio.run(postgres.new_database())))
    thread.start()
    thread.join()
    return made[0]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def _world(redis: Valkey, _database: str) -> AsyncIterator[World]:
    simulator, held = Simulator(record=2000), Held()
    url = await simulator.start()
    wire = Balancer([Backend(port_of(url))])
    await wire.start()
    text = config(url, wire.port, await held.start())
    yield World(simulator, wire, held, text, {"REDIS_URL": redis.url, "DATABASE_URL": _database})
    await held.stop()
    await wire.stop()
    await simulator.stop()


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    """Nobody has been asked yet, and who is held is held."""
    _world.simulator.clear()
    _world.held.seen.clear()
    _world.held.go.clear()
    yield _world
    _world.held.go.set()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def pair(_world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Left as it was found: both run, and their stores are there."""
    folder: Path = tmp_path_factory.mktemp("pair")
    async with serving(folder, _world.config, _world.environ, LONG_S) as running:
        yield running
