from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.edge.recorder import Recorder
from tests.money.held import Held

Record = Callable[[Callable[[int], bytes]], Awaitable[str]]


@pytest.fixture
async def record() -> AsyncIterator[Record]:
    """Starts upstreams that answer as they are told, by the request's number; returns the address of each."""
    running: list[Recorder] = []

    async def started(answers: Callable[[int], bytes]) -> str:
        running.append(Recorder(answers))
        return await running[-1].start()

    yield started
    for one in running:
        await one.stop()


@pytest.fixture(autouse=True)
def _soon(rows_at_once: None) -> None:
    return


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    upstream = Held()
    yield upstream
    await upstream.stop()
