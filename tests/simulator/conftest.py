from collections.abc import AsyncIterator

import pytest

from proxy.simulator.server import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    simulator = Simulator(record=100)
    yield simulator
    await simulator.stop()


@pytest.fixture
async def base_url(simulator: Simulator) -> str:
    return await simulator.start()
