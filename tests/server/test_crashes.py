"""F094, F095: killed at any moment, a hundred times, the books hold every acknowledged row once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from proxy.core.summary import Span
from proxy.ports import Ledger
from proxy.server.journal import UNFINISHED, Journal
from proxy.server.outbox import Outbox
from tests.gateway import RecordingLog
from tests.postgres import Postgres
from tests.rows import DAY
from tests.server.crash import WORST_CASE, open_ledger

KILLS = 100
AT_ONCE = 2  # workers of one machine, who also deliver what each other's dead left


async def _read_books(ledger: Ledger) -> tuple[Counter[str], dict[str, tuple[str, int]]]:
    ids: Counter[str] = Counter()
    ends: dict[str, tuple[str, int]] = {}
    place = 0
    while found := await ledger.booked(place, 5000):
        place = found[-1].seq
        for one in found:
            ids[one.row.id] += 1
            ends[one.row.id] = (one.row.outcome, one.row.cost_nanousd)
    return ids, ends


def _acknowledged(told: Path) -> tuple[set[str], set[str]]:
    entries = [line.split() for line in told.read_text().splitlines()]
    return {one for kind, one in entries if kind == "I"}, {one for kind, one in entries if kind == "S"}


@pytest.mark.parametrize("technology", ["sqlite", "postgres"])
async def test_killed_a_hundred_times_under_load(
    technology: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = str(tmp_path / "ledger.sqlite3")
    if technology == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        store = await server.new_database()
    root, told = tmp_path / "journal", tmp_path / "told"
    rng = random.Random(95)
    command = [sys.executable, "-m", "tests.server.crash", store, str(root), str(told)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mother:
        assert mother.stdin is not None
        assert mother.stdout is not None

        def born() -> int:
            mother.stdin.write("\n")  # type: ignore[union-attr] # asserted above
            mother.stdin.flush()  # type: ignore[union-attr]
            return int(mother.stdout.readline())  # type: ignore[union-attr]

        living = [born() for _ in range(AT_ONCE)]
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.005, 0.12))
            os.kill(living.pop(0), signal.SIGKILL)
            living.append(born())
        for one in living:
            os.kill(one, signal.SIGKILL)
        mother.stdin.close()

    ledger, log = open_ledger(store), RecordingLog()
    outbox = Outbox(Journal(root, log), ledger, log)
    assert await outbox.start(60.0)
    begun, settled = _acknowledged(told)
    ids, ends = await _read_books(ledger)
    summary = await ledger.summary(Span(DAY, DAY))
    await outbox.close()
    await ledger.close()

    assert not log.bugs
    assert len(settled) > 3 * KILLS, "there was no load to speak of"
    assert settled - ids.keys() == set(), "lost"
    assert begun - ids.keys() == set(), "begun, and in no book"
    assert [one for one, count in ids.items() if count > 1] == [], "doubled"
    assert summary.total.calls == len(ids), "the roll-ups count once what the rows count once"
    assert summary.total.cost_nanousd == sum(cost for _, cost in ends.values())
    assert {ends[one][0] for one in settled} == {"ok"}
    interrupted = {one for one, (outcome, _) in ends.items() if outcome == "interrupted"}
    assert {ends[one] for one in interrupted} == {("interrupted", WORST_CASE)}
    assert interrupted <= begun | (ids.keys() - begun - settled)  # an entry may be written and its writer not told
    assert len(interrupted) >= KILLS // 10
    assert all(one.name.startswith(UNFINISHED) for one in root.iterdir()), "every journal was delivered and removed"
