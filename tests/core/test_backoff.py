import random

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.backoff import RetryPolicy, delay

_POLICIES = st.builds(
    RetryPolicy,
    first_s=st.floats(0.001, 60),
    factor=st.floats(1, 10),
    max_s=st.floats(0.001, 600),
    jitter=st.floats(0, 1),
)


@given(repeat=st.integers(1, 100), policy=_POLICIES, seed=st.integers())
def test_a_delay_grows_to_its_bound_within_its_jitter(repeat: int, policy: RetryPolicy, seed: int) -> None:
    exact = policy.first_s
    for _ in range(repeat - 1):
        exact = min(exact * policy.factor, policy.max_s)
    exact = min(exact, policy.max_s)
    found = delay(repeat, policy, random.Random(seed))
    assert found >= 0
    assert exact * (1 - policy.jitter) * 0.999 <= found <= exact * (1 + policy.jitter) * 1.001


def test_the_first_delays() -> None:
    policy = RetryPolicy(jitter=0.0)
    assert [round(delay(repeat, policy, random.Random(0)), 3) for repeat in (1, 2, 3, 6, 7, 50)] == [
        0.1,
        0.2,
        0.4,
        3.2,
        5.0,
        5.0,
    ]
