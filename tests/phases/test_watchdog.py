"""The process's timer over its exchanges: a bound that is passed ends one, a busy loop ends none."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from proxy.core.failure import FailureKind
from proxy.core.routing import Timeouts
from proxy.phases import watchdog
from proxy.phases.watchdog import Ticker

BOUND_S = 0.1


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "TICK_S", 0.02)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    """Ours, as a reader, and theirs."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    yield reader, theirs
    writer.close()
    theirs.close()
    await asyncio.sleep(0)


async def _first_byte(ticker: Ticker, reader: asyncio.StreamReader) -> FailureKind | bytes:
    """What came, or the bound that was passed while nothing did."""
    now = time.monotonic()
    watched = ticker.watch(Timeouts(), now + 60)
    watched.limit(FailureKind.FIRST_EVENT_TIMEOUT, now + BOUND_S)
    try:
        data = await reader.read(1)
        watched.relay(time.monotonic())
        await asyncio.sleep(0.05)  # a few ticks more
    except asyncio.CancelledError:
        kind = watched.claim()
        assert kind is not None
        return kind
    else:
        return data
    finally:
        ticker.release(watched)


@pytest.mark.parametrize("speaks", [True, False], ids=["it came while we were busy", "nothing came"])
async def test_a_busy_loop_is_not_a_slow_provider(
    speaks: bool, ends: tuple[asyncio.StreamReader, socket.socket]
) -> None:
    reader, theirs = ends
    waiting = asyncio.create_task(_first_byte(Ticker(time.monotonic), reader))
    await asyncio.sleep(0)
    if speaks:
        theirs.send(b"!")
    time.sleep(4 * BOUND_S)
    async with asyncio.timeout(5):
        assert await waiting == (b"!" if speaks else FailureKind.FIRST_EVENT_TIMEOUT)


async def test_a_bound_is_noticed_within_a_tick_or_two(ends: tuple[asyncio.StreamReader, socket.socket]) -> None:
    began = time.monotonic()
    async with asyncio.timeout(5):
        assert await _first_byte(Ticker(time.monotonic), ends[0]) is FailureKind.FIRST_EVENT_TIMEOUT
    assert BOUND_S <= time.monotonic() - began < 10 * BOUND_S
