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
from tests.stopwatch import Stopwatch

BOUND_S = 0.3


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


@pytest.mark.parametrize("speaks", ["meanwhile", "soon after", "never"])
async def test_a_busy_loop_is_not_a_slow_provider(
    speaks: str, ends: tuple[asyncio.StreamReader, socket.socket]
) -> None:
    reader, theirs = ends
    waiting = asyncio.create_task(_first_byte(Ticker(time.monotonic), reader))
    await asyncio.sleep(0)
    if speaks == "meanwhile":
        theirs.send(b"!")
    time.sleep(2 * BOUND_S)
    if speaks == "soon after":
        asyncio.get_running_loop().call_later(BOUND_S / 6, theirs.send, b"!")
    async with asyncio.timeout(5):
        assert await waiting == (FailureKind.FIRST_EVENT_TIMEOUT if speaks == "never" else b"!")


async def test_the_time_of_the_whole_is_not_prolonged(ends: tuple[asyncio.StreamReader, socket.socket]) -> None:
    ticker = Ticker(time.monotonic)
    watched = ticker.watch(Timeouts(), time.monotonic() + BOUND_S)
    time.sleep(2 * BOUND_S)
    with pytest.raises(asyncio.CancelledError):
        await ends[0].read(1)
    assert watched.claim() is FailureKind.TOTAL_TIMEOUT
    ticker.release(watched)


async def _relayed(ticker: Ticker, reader: asyncio.StreamReader, count: int) -> FailureKind | bytes:
    """So many bytes, a turn of the loop for each, which are an event together."""
    watched = ticker.watch(Timeouts(idle_s=BOUND_S, silent_s=BOUND_S), time.monotonic() + 60)
    watched.relay(time.monotonic())
    try:
        got = b""
        while len(got) < count:
            got += await reader.read(1)
            watched.last_byte_at = time.monotonic()
    except asyncio.CancelledError:
        kind = watched.claim()
        assert kind is not None
        return kind
    else:
        return got
    finally:
        ticker.release(watched)


async def test_an_event_in_pieces_is_not_silence_because_we_were_busy(
    ends: tuple[asyncio.StreamReader, socket.socket],
) -> None:
    reader, theirs = ends
    waiting = asyncio.create_task(_relayed(Ticker(time.monotonic), reader, 20))
    await asyncio.sleep(0)
    time.sleep(2 * BOUND_S)
    for _ in range(20):
        theirs.send(b"!")
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        assert await waiting == b"!" * 20


async def test_a_bound_is_noticed_within_a_tick_or_two(ends: tuple[asyncio.StreamReader, socket.socket]) -> None:
    watch = Stopwatch.patient()
    async with asyncio.timeout(5):
        assert await _first_byte(Ticker(time.monotonic), ends[0]) is FailureKind.FIRST_EVENT_TIMEOUT
    assert watch.passed_s >= BOUND_S
    assert watch.spent_s < 4 * BOUND_S
