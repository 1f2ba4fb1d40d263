"""Orders within tiers: shares as weighted, the fastest first, and nothing lost."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.balance import FAILED_S, HALF_LIFE_S, Speeds, order, prompt_prefix
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


STUCK = Tier((A, B, C), Balance.STICKY, (1.0, 1.0, 1.0))


def stuck(prefix: bytes, tier: Tier = STUCK) -> str:
    return names(order([tier], Speeds(), random.Random(), 0.0, streamed=True, affinity=lambda: prefix))


@given(st.binary(max_size=40))
def test_the_same_prefix_meets_at_the_same_target(prefix: bytes) -> None:
    assert stuck(prefix) == stuck(prefix)
    assert sorted(stuck(prefix)) == ["a", "b", "c"]


@given(st.binary(max_size=40))
def test_when_a_target_leaves_only_its_own_requests_move(prefix: bytes) -> None:
    left = Tier((A, C), Balance.STICKY, (1.0, 1.0))
    assert stuck(prefix, left) == stuck(prefix).replace("b", "")


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (6.0, 3.0, 1.0), (0.1, 0.1, 0.8)])
def test_prefixes_share_by_weight(weights: tuple[float, ...]) -> None:
    tier = Tier((A, B, C), Balance.STICKY, weights)
    firsts = Counter(stuck(str(number).encode(), tier)[0] for number in range(20_000))
    for name, weight in zip("abc", weights, strict=True):
        assert abs(firsts[name] / 20_000 - weight / sum(weights)) < 0.015


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


LONG = turn("system", "You know every dam. " * 400)
SHORT = turn("system", "Be brief.")
ASKED, SAID, AGAIN = turn("user", "How high?"), turn("assistant", "High."), turn("user", "And now?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [LONG, ASKED]}, {"messages": [LONG, AGAIN]}),
        ({"messages": [LONG, ASKED]}, {"messages": [LONG, ASKED, SAID, AGAIN]}),
        ({"messages": [SHORT, ASKED]}, {"messages": [SHORT, AGAIN]}),
        ({"messages": [LONG]}, {"messages": [LONG, SAID, AGAIN]}),
        ({"system": LONG["content"], "messages": [ASKED]}, {"system": LONG["content"], "messages": [AGAIN]}),
        ({"instructions": LONG["content"], "input": "a"}, {"instructions": LONG["content"], "input": "b"}),
        ({"input": [LONG, ASKED]}, {"input": [LONG, AGAIN]}),
        ({"prompt": LONG["content"] + "a"}, {"prompt": LONG["content"] + "b"}),
        ({"prompt_cache_key": "k", "messages": [ASKED]}, {"prompt_cache_key": "k", "messages": [AGAIN]}),
        ({"messages": [SHORT, ASKED], "temperature": 1}, {"temperature": 0, "messages": [SHORT, ASKED]}),
    ],
)
def test_what_shares_a_prompt_cache_has_one_prefix(one: dict[str, object], other: dict[str, object]) -> None:
    assert prompt_prefix(one) == prompt_prefix(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [LONG, ASKED]}, {"messages": [SHORT, ASKED]}),
        ({"messages": [ASKED]}, {"messages": [AGAIN]}),
        ({"messages": [SHORT, ASKED, SAID, AGAIN]}, {"messages": [SHORT, AGAIN, SAID, AGAIN]}),
        ({"prompt_cache_key": "k", "messages": [ASKED]}, {"prompt_cache_key": "l", "messages": [ASKED]}),
    ],
)
def test_what_does_not_has_another(one: dict[str, object], other: dict[str, object]) -> None:
    assert prompt_prefix(one) != prompt_prefix(other)


@pytest.mark.parametrize("fields", [{}, {"messages": None}, {"messages": []}, {"messages": 5}, {"prompt": ["\ud800"]}])
def test_any_body_has_a_prefix(fields: dict[str, object]) -> None:
    assert len(prompt_prefix(fields)) <= 4096
