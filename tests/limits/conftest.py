from collections.abc import AsyncIterator

import pytest

from tests.money.held import Held


@pytest.fixture(autouse=True)
def _soon(rows_at_once: None) -> None:
    return


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    upstream = Held()
    yield upstream
    await upstream.stop()
