"""S06: how long a refusal takes tells nobody which ids there are.

A known id with a wrong secret and an unknown id are timed by turns, 10,000 times each, and their medians compared: what else
the machine does hits both alike and moves no median. A round within the bound will do, because a leak is in all of them. It
does raise the deviation, so the control, which has a leak, compares the differences themselves.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from proxy.core import virtual_key
from proxy.core.payer import NO_BUDGETS
from proxy.core.virtual_key import Presented
from proxy.phases.key_ring import KeyProblem, KeyRing, Refusal
from proxy.stores.sqlite.keys import SqliteKeys
from tests.gateway import RecordingLog
from tests.keys import PEPPERS, new_key

TIMINGS = 10_000
SHARE_MAX = 0.05
ROUNDS = 5
KEYS = 200


@pytest.fixture
async def ring(tmp_path: Path) -> KeyRing:
    made = KeyRing(
        SqliteKeys(tmp_path / "trust.sqlite3"), PEPPERS, NO_BUDGETS, RecordingLog(), time.time, time.monotonic
    )
    for _ in range(KEYS):
        await made.store.create(new_key()[1])
    await made.refresh()
    await made.store.close()
    return made


class Gap(NamedTuple):
    """Units: nanoseconds. ``deviation``: the standard deviation of all timings."""

    difference: float
    deviation: float


def measured(verify: Callable[[str], object], known: list[str], unknown: list[str]) -> Gap:
    """How far the medians are apart."""
    times: tuple[list[int], list[int]] = ([], [])
    turns = [(text, times[0]) for text in known] + [(text, times[1]) for text in unknown]
    random.Random(7).shuffle(turns)
    gc.disable()
    try:
        for text, spent in turns:
            began = time.perf_counter_ns()
            verify(text)
            spent.append(time.perf_counter_ns() - began)
    finally:
        gc.enable()
    deviation = statistics.stdev([*times[0], *times[1]])
    return Gap(abs(statistics.median(times[0]) - statistics.median(times[1])), deviation)


def presented(ring: KeyRing) -> tuple[list[str], list[str]]:
    """Wrong secrets of known ids, and keys of unknown ids: each with another secret."""
    ids = list(ring._entries)
    known = [virtual_key.make(ids[at % KEYS]).text for at in range(TIMINGS)]
    unknown_ids = [virtual_key.make().id for _ in range(KEYS)]
    return known, [virtual_key.make(unknown_ids[at % KEYS]).text for at in range(TIMINGS)]


async def test_s06_an_unknown_id_takes_as_long_as_a_wrong_secret(ring: KeyRing) -> None:
    known, unknown = presented(ring)
    for text in (known[0], unknown[0]):
        refused = ring.verify(text)
        assert isinstance(refused, Refusal)
        assert refused.problem is KeyProblem.UNKNOWN
    found: list[Gap] = []
    for _ in range(ROUNDS):
        found.append(measured(ring.verify, known, unknown))
        if found[-1].difference < SHARE_MAX * found[-1].deviation:
            return
    raise AssertionError(f"the medians are apart: {found}")


async def test_s06_a_way_out_for_unknown_ids_would_be_found(ring: KeyRing) -> None:
    """The control: the same key ring, which does not work for an id that it does not know."""
    ids = set(ring._entries)

    def hasty(text: str) -> object:
        parsed = virtual_key.parse(text)
        if not isinstance(parsed, Presented) or parsed.id not in ids:
            return None
        return ring.verify(text)

    known, unknown = presented(ring)
    honest = min(measured(ring.verify, known, unknown).difference for _ in range(2))
    assert min(measured(hasty, known, unknown).difference for _ in range(2)) > 5 * honest
