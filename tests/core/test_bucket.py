"""Buckets: what a second and a minute allow, exactly; what flows back; what never fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import bucket
from proxy.core.bucket import DEBT, REQUEST_UNIT, Bucket, leaked

NUMBER_MAX = 2**53


@pytest.mark.parametrize(
    ("rps", "burst", "at_once", "ms_a_request"),
    [
        (10, 50, 50, 100),
        (10, None, 10, 100),
        (0.5, None, 1, 2000),
        (2.5, None, 3, 400),
        (0.001, 1, 1, 1_000_000),
        (1000, 1, 1, 1),
    ],
)
def test_a_bucket_of_requests(rps: float, burst: int | None, at_once: int, ms_a_request: int) -> None:
    made = bucket.requests(rps, burst)
    assert made.left(0) == at_once
    full = at_once * REQUEST_UNIT
    assert made.wait_ms(full, 1) == ms_a_request
    assert made.wait_ms(full - REQUEST_UNIT, 1) == 0
    assert leaked(full, 0, made.per_ms, ms_a_request) <= full - REQUEST_UNIT


def test_a_minute_gives_a_minutes_tokens() -> None:
    made = bucket.tokens(1000)
    full = 1000 * made.unit
    assert (made.left(0), made.left(full), made.full_in_ms(full)) == (1000, 0, 60_000)
    assert made.wait_ms(full, 1) == 60
    assert leaked(full, 0, made.per_ms, 60_000) == 0
    assert made.wait_ms(0, 1001) is None
    assert made.wait_ms(full + 1, 0) == 1, "who owes waits, even for nothing"


@pytest.mark.parametrize("made", [bucket.requests(1_000_000, 1_000_000), bucket.tokens(10**9)])
def test_the_largest_are_exact_in_a_double(made: Bucket) -> None:
    assert made.debt_max == made.size * DEBT < NUMBER_MAX
    assert made.size + 10**9 * made.unit < NUMBER_MAX


@given(
    st.integers(1, 10**6),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=30),
)
def test_never_more_than_the_burst_and_what_the_time_allows(
    milli_rps: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    """Whatever is asked whenever; and the wait that is told is the first moment at which it fits."""
    made = bucket.requests(milli_rps / 1000, burst)
    used = at = taken = 0
    for waited, asked in steps:
        now = at + waited
        used, at = leaked(used, at, made.per_ms, now), now
        for _ in range(asked):
            wait_ms = made.wait_ms(used, 1)
            assert wait_ms is not None
            if wait_ms:
                assert made.wait_ms(leaked(used, at, made.per_ms, at + wait_ms), 1) == 0
                assert made.wait_ms(leaked(used, at, made.per_ms, at + wait_ms - 1), 1) != 0
                break
            used += made.unit
            taken += 1
        assert taken * 1_000_000 <= burst * 1_000_000 + milli_rps * at


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    assert leaked(500, 1000, 1, 400) == 500


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shares_are_no_more_than_the_whole_and_let_something_through(workers: int) -> None:
    whole = bucket.requests(10, 50)
    part = bucket.share(whole, workers)
    assert part.size * workers <= whole.size
    assert part.per_ms * workers <= whole.per_ms
    assert bucket.share(bucket.requests(0.001, 1), 50).left(0) == 1
