from collections.abc import AsyncIterator

import pytest

from tests.golden.bench import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = await Bench.start()
    yield bench
    await bench.stop()
