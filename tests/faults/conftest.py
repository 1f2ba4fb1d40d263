from collections.abc import AsyncIterator

import pytest

from tests.money.held import Held


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    upstream = Held()
    yield upstream
    await upstream.stop()
