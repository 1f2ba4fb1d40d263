"""The share of a worker: what ran counts in it, what is larger takes all of it."""

from proxy.core import bucket
from proxy.core.limiting import LimitClaim, Limited, LimitId, LimitLease, LimitLeaseId, LimitSettlement
from proxy.core.local_limits import LocalLimits

CLAIM = LimitClaim(LimitId("a"), bucket.requests(1, 8), bucket.tokens(1000), 4)


def lease(name: str, tokens: int = 0) -> LimitLease:
    return LimitLease(LimitLeaseId(name), (CLAIM,), tokens)


def test_what_ran_counts_in_the_share() -> None:
    local = LocalLimits()
    local.begin([lease("before")], 2, 0)
    assert local.take(local.lease(lease("a")), 0).refused is None
    assert local.take(local.lease(lease("b")), 0).limited is Limited.SLOTS
    local.settle(LimitSettlement(LimitLeaseId("before"), (CLAIM,), 0), 0)
    assert local.take(local.lease(lease("b")), 0).refused is None


def test_what_is_larger_than_a_share_takes_all_of_it_and_what_never_fits_never_does() -> None:
    local = LocalLimits()
    local.begin([], 4, 0)
    assert local.lease(lease("a", 900)).tokens == 250
    assert local.take(local.lease(lease("a", 900)), 0).refused is None
    assert local.take(local.lease(lease("b", 1)), 0).limited is Limited.TOKENS
    never = local.take(local.lease(lease("c", 1001)), 10**9)
    assert (never.limited, never.wait_ms) == (Limited.TOKENS, None)


def test_each_time_it_begins_anew() -> None:
    local = LocalLimits()
    for _ in range(2):
        local.begin([], 8, 0)
        assert local.take(local.lease(lease("a")), 0).refused is None
        assert local.take(local.lease(lease("b")), 0).limited is Limited.REQUESTS
        local.end()
