"""Old rows go in bounded steps; what is young, and the roll-ups, stay."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.core.ledger import US_PER_DAY, US_PER_S
from proxy.core.summary import Span
from proxy.server import retention
from proxy.server.retention import KEEP_DAYS_MIN, retain, sweep
from proxy.stores.sqlite.ledger import SqliteLedger
from tests.gateway import RecordingLog
from tests.rows import DAY, NOON_US, row

NOW_S = NOON_US / US_PER_S


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    opened = SqliteLedger(tmp_path / "ledger.sqlite3")
    await opened.write([row(number, started_us=NOON_US - number * US_PER_DAY) for number in range(100)])
    yield opened
    await opened.close()


@pytest.mark.parametrize(("keep_days", "left"), [(90, 91), (40, 41), (1, KEEP_DAYS_MIN + 1)])
async def test_a_sweep_removes_what_is_older(
    ledger: SqliteLedger, keep_days: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 7)
    monkeypatch.setattr(retention, "STEP_PAUSE_S", 0)
    before = await ledger.summary(Span(DAY - 200, DAY))
    assert await sweep(ledger, keep_days, NOW_S) == 100 - left
    assert len(await ledger.booked(0, 1000)) == left
    assert await ledger.summary(Span(DAY - 200, DAY)) == before
    assert await sweep(ledger, keep_days, NOW_S) == 0


async def test_it_goes_on_after_the_store_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SWEEP_S", 0.01)
    log = RecordingLog()
    events: list[str] = []
    monkeypatch.setattr(log, "event", lambda message, **_: events.append(message))
    folder = tmp_path / "data"
    folder.touch()  # in the way
    ledger = SqliteLedger(folder / "ledger.sqlite3")
    task = asyncio.create_task(retain(ledger, log, 90, lambda: NOW_S))
    async with asyncio.timeout(5):
        while "ledger: old rows could not be removed" not in events:
            await asyncio.sleep(0.005)
        folder.unlink()
        await ledger.write([row(1, started_us=1)])
        while "ledger: removed old rows" not in events:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])
    await ledger.close()
