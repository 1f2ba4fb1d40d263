"""Orders within tiers: shares as weighted, the fastest first, and nothing lost."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.balance import FAILED_S, HALF_LIFE_S, Speeds, order
from proxy.core.routing import Balance, Provider, Target, Tier
from proxy.terms import ProviderId

HOME = Provider(ProviderId("p"), "http://127.0.0.1:1", {}, None, {})
A, B, C, D = (Target(HOME, name) for name in "abcd")


def names(targets: tuple[Target, ...]) -> str:
    return "".join(target.model for target in targets)


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 1.0), (9.0, 1.0), (0.5, 2.5)])
def test_the_first_is_drawn_by_its_weight(weights: tuple[float, float]) -> None:
    rng = random.Random(7)
    tier = Tier((A, B), Balance.WEIGHTED, weights)
    firsts = Counter(order([tier], Speeds(), rng, 0.0, streamed=True)[0].model for _ in range(20_000))
    assert abs(firsts["a"] / 20_000 - weights[0] / sum(weights)) < 0.015


def test_the_second_is_drawn_from_those_that_are_left() -> None:
    rng = random.Random(7)
    tier = Tier((A, B, C), Balance.WEIGHTED, (6.0, 3.0, 1.0))
    drawn = [names(order([tier], Speeds(), rng, 0.0, streamed=True)) for _ in range(30_000)]
    behind_a = Counter(one[1] for one in drawn if one[0] == "a")
    assert abs(behind_a["b"] / behind_a.total() - 3 / 4) < 0.02


@given(st.randoms(use_true_random=False), st.lists(st.floats(0.001, 1e6), min_size=4, max_size=4))
def test_every_target_stays_in_its_tier_once(rng: random.Random, weights: list[float]) -> None:
    tiers = [Tier((A,)), Tier((B, C), Balance.WEIGHTED, (weights[0], weights[1])), Tier((D,), Balance.FASTEST, (1.0,))]
    ordered = names(order(tiers, Speeds(), rng, 0.0, streamed=False))
    assert ordered[0] == "a"
    assert set(ordered[1:3]) == {"b", "c"}
    assert ordered[3:] == "d"


FASTEST = Tier((A, B, C), Balance.FASTEST, (1.0, 1.0, 1.0))


def fastest(speeds: Speeds, now: float, *, streamed: bool = True) -> str:
    return names(order([FASTEST], speeds, random.Random(1), now, streamed=streamed))


def test_the_fastest_first_and_the_unknown_before_it() -> None:
    speeds = Speeds()
    assert fastest(speeds, 0.0) == "abc"
    speeds.note(A, 0.9, 0.0, streamed=True, failed=False)
    assert fastest(speeds, 0.0) == "bca"
    speeds.note(B, 0.2, 0.0, streamed=True, failed=False)
    speeds.note(C, 0.5, 0.0, streamed=True, failed=False)
    assert fastest(speeds, 0.0) == "bca"


def test_streams_and_whole_answers_are_told_apart() -> None:
    speeds = Speeds()
    for target, seconds in ((A, 0.1), (B, 0.2), (C, 0.3)):
        speeds.note(target, seconds, 0.0, streamed=True, failed=False)
        speeds.note(target, 1.0 - seconds, 0.0, streamed=False, failed=False)
    assert fastest(speeds, 0.0) == "abc"
    assert fastest(speeds, 0.0, streamed=False) == "cba"


def test_who_fails_goes_to_the_end_and_comes_back_in_time() -> None:
    speeds = Speeds()
    for target in (A, B, C):
        speeds.note(target, 0.4, 0.0, streamed=True, failed=False)
    speeds.note(A, 0.01, 1.0, streamed=True, failed=True)
    assert fastest(speeds, 1.0) == "bca"
    assert speeds.expected_s(A, 1.0, streamed=True) == pytest.approx(0.4 + 0.2 * (FAILED_S + 0.01 - 0.4))
    later = 1.0
    while fastest(speeds, later)[0] != "a":  # the others go on answering, and stay fresh
        later += 60.0
        for target in (B, C):
            speeds.note(target, 0.4, later, streamed=True, failed=False)
    assert 2 * HALF_LIFE_S < later < 4 * HALF_LIFE_S


def test_one_slow_answer_does_not_make_a_target_slow() -> None:
    speeds = Speeds()
    for target, seconds in ((A, 0.2), (B, 0.6), (C, 0.7)):
        speeds.note(target, seconds, 0.0, streamed=True, failed=False)
    speeds.note(A, 2.0, 0.0, streamed=True, failed=False)
    assert fastest(speeds, 0.0)[0] == "a"
