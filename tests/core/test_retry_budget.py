"""How many repeats there may be: both bounds over any stretch of time, and that they are used up to the bound."""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.retry_budget import WINDOW_S, RetryBudget

# What happens, one after another: a request, a wish to repeat, the end of a repeat, seconds that pass.
_HAPPENINGS = st.lists(
    st.sampled_from(["request", "repeat", "end"]) | st.sampled_from([0.1, 1.0, 9.9, 10.0, 3600.0]), max_size=200
)


@settings(max_examples=400)
@given(happenings=_HAPPENINGS)
def test_over_any_stretch_repeats_are_a_fifth_of_the_requests_and_three(happenings: list[str | float]) -> None:
    budget = RetryBudget()
    now = 50.0
    story: list[str] = []
    requests_at: list[float] = []
    in_flight = 0
    for happening in happenings:
        if isinstance(happening, float):
            now += happening
        elif happening == "request":
            budget.note_request(now)
            requests_at.append(now)
            story.append("request")
        elif happening == "repeat" and budget.try_take(now):
            in_flight += 1
            story.append("repeat")
            lately = sum(at > now - WINDOW_S - 1 for at in requests_at)
            assert in_flight <= max(3, lately // 5)
        elif happening == "end" and in_flight:
            budget.give_back()
            in_flight -= 1
        assert budget.in_flight == in_flight
    for begin in range(len(story)):
        repeats = requests = 0
        for what in story[begin:]:
            repeats += what == "repeat"
            requests += what == "request"
            assert repeats <= 0.2 * requests + 3 + 1e-9


def test_a_total_outage() -> None:
    """200 requests/s for a minute, each of which would be repeated twice."""
    budget = RetryBudget()
    attempts = requests = 0
    for number in range(12_000):
        now = number / 200
        budget.note_request(now)
        requests += 1
        attempts += 1
        for _ in range(2):
            if budget.try_take(now):
                attempts += 1
                budget.give_back()
    assert attempts <= 1.2 * requests + 3
    assert attempts >= 1.2 * requests - 3  # and what is allowed is had


def test_a_quiet_day_saves_nothing_up() -> None:
    budget = RetryBudget()
    for number in range(10_000):
        budget.note_request(number / 100)
    assert [budget.try_take(100.0) for _ in range(4)] == [True, True, True, False]


def test_few_requests_may_still_be_repeated() -> None:
    budget = RetryBudget()
    budget.note_request(0.0)
    assert [budget.try_take(0.0) for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        budget.give_back()
    assert not budget.try_take(1e6)  # time alone earns nothing: the outage may still be on
    for _ in range(5):
        budget.note_request(1e6)
    assert [budget.try_take(1e6) for _ in range(2)] == [True, False]


def test_repeats_that_hang_do_not_pile_up() -> None:
    budget = RetryBudget()
    taken = 0
    for number in range(60_000):
        now = number / 100
        budget.note_request(now)
        taken += budget.try_take(now)
    assert taken == 200  # a fifth of 10 s of 100 requests/s, and none of them has ended
    budget.give_back()
    assert budget.try_take(599.99)
    assert not budget.try_take(599.99)
    assert not budget.try_take(700.0)  # nobody asks any more: three may be in flight, and far more are


def test_what_is_given_back_too_often_counts_once() -> None:
    budget = RetryBudget()
    budget.give_back()
    budget.note_request(0.0)
    assert [budget.try_take(0.0) for _ in range(4)] == [True, True, True, False]


def test_other_shares() -> None:
    never = RetryBudget(share=0.0, floor=0)
    always = RetryBudget(share=1.0, floor=3)
    for number in range(100):
        never.note_request(number)
        always.note_request(number)
        assert not never.try_take(number)
        assert always.try_take(number)
        always.give_back()
