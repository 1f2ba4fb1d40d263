"""The slowest twentieth of a route's first events."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.pace import SAMPLES_MAX, SAMPLES_MIN, Pace


def test_too_few_tell_nothing() -> None:
    pace = Pace()
    for _ in range(SAMPLES_MIN - 1):
        pace.note(1.0)
        assert pace.p95_s() is None
    pace.note(1.0)
    assert pace.p95_s() == 1.0


@given(st.lists(st.floats(0.001, 100), min_size=SAMPLES_MIN, max_size=SAMPLES_MAX))
def test_nineteen_of_twenty_were_no_slower(samples: list[float]) -> None:
    pace = Pace()
    for sample in samples:
        pace.note(sample)
    p95 = pace.p95_s()
    assert p95 is not None
    assert sum(sample <= p95 for sample in samples) >= 0.95 * len(samples)
    assert sum(sample < p95 for sample in samples) < 0.95 * len(samples)


def test_it_follows_what_is_new() -> None:
    pace = Pace()
    for _ in range(SAMPLES_MAX):
        pace.note(1.0)
    assert pace.p95_s() == 1.0
    for _ in range(SAMPLES_MAX):
        pace.note(0.1)
        pace.p95_s()
    assert pace.p95_s() == statistics.fmean([0.1])
