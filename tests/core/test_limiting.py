"""The state machine of limits, beside a slow and obvious one that remembers every event and counts anew each time."""

from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from proxy.core import bucket
from proxy.core.limiting import (
    KEPT_MS,
    SWEEP_MIN,
    LimitClaim,
    Limited,
    LimitId,
    LimitLease,
    LimitLeaseId,
    LimitSettlement,
    LimitStates,
    share,
)

LEASE_MS = 1000
RPS, BURST, TPM, SLOTS = 2, 3, 6000, 2
CLAIM = LimitClaim(LimitId("a"), bucket.requests(RPS, BURST), bucket.tokens(TPM), SLOTS)


@dataclass
class Slow:
    """One subject. Levels are exact fractions, worked out from the whole past."""

    requests: list[int] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def level(events: list[tuple[int, int]], per_ms: Fraction, now: int, most: int | None = None) -> Fraction:
        used, at = Fraction(0), 0
        for when, amount in [*events, (now, 0)]:
            used = max(Fraction(0), used - (when - at) * per_ms)
            used = max(Fraction(0), used + amount)
            if most is not None:
                used = min(used, Fraction(most))
            at = when
        return used

    def running(self, now: int) -> int:
        return sum(until > now for until in self.leases.values())

    def used(self, now: int) -> tuple[Fraction, Fraction]:
        return (
            self.level([(at, 1) for at in self.requests], Fraction(RPS, 1000), now),
            self.level(self.tokens, Fraction(TPM, 60_000), now, TPM * 10),
        )

    def take(self, name: str, tokens: int, now: int) -> Limited | None:
        requests_used, tokens_used = self.used(now)
        if requests_used + 1 > BURST:
            return Limited.REQUESTS
        if tokens_used + tokens > TPM:
            return Limited.TOKENS
        if self.running(now) >= SLOTS:
            return Limited.SLOTS
        self.requests.append(now)
        self.tokens.append((now, tokens))
        self.leases[name] = now + LEASE_MS
        return None

    def settle(self, name: str, change: int, now: int) -> None:
        if self.leases.pop(name, 0) > now:
            self.tokens.append((now, change))


STEPS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, TPM + 10)),
    st.tuples(st.just("settle"), st.integers(-TPM, 3 * TPM), st.integers(0, 5)),
    st.tuples(st.just("renew"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 499, 500, 1000, 60_000])),
)


@given(st.lists(STEPS, max_size=50))
def test_any_order_of_events_is_what_the_slow_one_says(steps: list[tuple[object, ...]]) -> None:
    states, slow, now = LimitStates(LEASE_MS), Slow(), 0
    for number, (what, *values) in enumerate(steps):
        numbers = [value for value in values if isinstance(value, int)]
        match what:
            case "take":
                taken = states.take(LimitLease(LimitLeaseId(str(number)), (CLAIM,), numbers[0]), now)
                assert taken.limited is slow.take(str(number), numbers[0], now)
            case "settle":
                name = str(number - numbers[1])
                states.settle([LimitSettlement(LimitLeaseId(name), (CLAIM,), numbers[0])], now)
                slow.settle(name, numbers[0], now)
            case "renew":
                name = str(number - numbers[0])
                states.renew([LimitLease(LimitLeaseId(name), (CLAIM,), 0)], now)
                slow.leases[name] = now + LEASE_MS
            case _:
                now += numbers[0]
        (standing,) = states.look([CLAIM], now)
        requests_used, tokens_used = slow.used(now)
        assert Fraction(standing.requests_used, bucket.REQUEST_UNIT) == requests_used
        assert Fraction(standing.tokens_used, bucket.TOKEN_UNIT) == tokens_used
        assert standing.running == slow.running(now)


def test_subjects_that_take_nothing_any_more_are_forgotten() -> None:
    states = LimitStates(LEASE_MS)
    for number in range(SWEEP_MIN):
        states.look([LimitClaim(LimitId(str(number)), slots=1)], 0)
    states.look([LimitClaim(LimitId("new"), slots=1)], KEPT_MS + 1)
    assert states.reset(LimitId("new"))
    assert not states.reset(LimitId("0"))


def test_a_lease_ends_at_its_time_though_the_clock_was_set_back() -> None:
    states = LimitStates(LEASE_MS)
    states.take(LimitLease(LimitLeaseId("first"), (CLAIM,), 1), 5000)
    states.take(LimitLease(LimitLeaseId("second"), (CLAIM,), 1), 4990)
    (standing,) = states.look([CLAIM], 4995 + LEASE_MS)
    assert standing.running == 1
    (standing,) = states.look([CLAIM], 5000 + LEASE_MS)
    assert standing.running == 0


def test_a_share_is_a_part_of_each_limit_and_never_nothing() -> None:
    part = share(CLAIM, 2)
    assert (part.requests, part.tokens, part.slots) == (
        bucket.Bucket(1_500_000, 1000, 1_000_000),
        bucket.Bucket(TPM * 30_000, TPM // 2, 60_000),
        1,
    )
    assert share(LimitClaim(LimitId("a"), slots=1), 5).slots == 1
    assert share(CLAIM, 1) is CLAIM
