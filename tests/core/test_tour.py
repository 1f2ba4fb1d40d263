"""Which target is asked next: rows of whole tours, and what holds for every plan and every failure."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.backoff import RetryPolicy
from proxy.core.credential import Credential
from proxy.core.failure import TABLE, Again, Failure, FailureKind
from proxy.core.routing import AuthStyle, Provider, Target
from proxy.core.tour import Step, Tour, verdict
from proxy.terms import Api, ProviderId

K = FailureKind
POLICY = RetryPolicy(attempts=3, first_s=0.1, factor=2.0, max_s=5.0, jitter=0.0)


def target(name: str, credentials: int = 1) -> Target:
    shown = tuple(Credential(f"k{number}") for number in range(credentials))
    provider = Provider(ProviderId("p"), "https://p.example", {}, None, {Api.CHAT: AuthStyle.BEARER}, shown)
    return Target(provider, name)


def failed(kind: FailureKind, hint_s: float | None = None) -> Failure:
    return Failure(kind, "m", retry_after_s=hint_s)


def told(step: Step) -> str:
    """`a`, `a!` on a fresh connection, `a-` without the refused field, `a+` after a refused credential, `a@1.5` later."""
    at = f"@{step.not_before:g}" if step.not_before else ""
    return f"{step.target.model}{'!' if step.fresh else ''}{'-' if step.plain else ''}{'+' * step.refused}{at}"


BUSY = failed(K.OVERLOADED)
DOWN, ERROR, STALE, PLAIN = (
    failed(kind) for kind in (K.CONNECT_TIMEOUT, K.SERVER_ERROR, K.STALE_CONNECTION, K.UNSUPPORTED_PARAM)
)


def slow(hint_s: float | None) -> Failure:
    return failed(K.THROTTLED, hint_s)


# (plan, how each step fails in turn, the steps that are taken); the clock stands at 100 s
TOURS: dict[str, tuple[str, list[Failure], str]] = {
    "each in turn": ("abc", [DOWN, DOWN, DOWN], "a b c"),
    "a server error comes again, after all others": (
        "abc",
        [ERROR, DOWN, DOWN, DOWN],
        "a b c a@100.1",
    ),
    "one target": ("a", [ERROR, ERROR, ERROR], "a a@100.1 a@100.2"),
    "refused, overloaded": ("ab", [failed(K.CONNECT_FAILED), BUSY, DOWN, DOWN], "a b a@100.1 b@100.1"),
    "as often as the policy says": ("ab", [ERROR] * 6, "a b a@100.1 b@100.1 a@100.2 b@100.2"),
    "a hint is longer than the backoff": ("a", [failed(K.SERVER_ERROR, 2.0), ERROR, DOWN], "a a@102 a@100.2"),
    "a hint is too long": ("a", [failed(K.SERVER_ERROR, 5.1)], "a"),
    "throttled with a hint": ("ab", [slow(2.0), slow(1.0), slow(None), slow(None)], "a b b@101 a@102"),
    "throttled, at once again": ("a", [slow(0.0), slow(0.0), slow(0.0)], "a a@100 a@100"),
    "throttled without a hint": ("ab", [slow(None), slow(None)], "a b"),
    "throttled for too long": ("ab", [slow(60.0), slow(60.0)], "a b"),
    "a stale connection is cured first": ("ab", [STALE, DOWN, DOWN], "a a! b"),
    "a stale connection twice": ("ab", [STALE, STALE, STALE, DOWN], "a a! b b!"),
    "a refused field is cured first": ("ab", [PLAIN, DOWN, DOWN], "a a- b"),
    "stale, then refused": ("a", [STALE, PLAIN, ERROR, ERROR, ERROR], "a a! a- a-@100.1 a-@100.2"),
    "refused twice is the client's": ("ab", [PLAIN, PLAIN], "a a-"),
    "refused twice ends the repeats too": ("ab", [ERROR, PLAIN, PLAIN], "a b b-"),
    "the client's fault ends it": ("abc", [ERROR, failed(K.INVALID_REQUEST)], "a b"),
    "the client's fault ends it, in a repeat": (
        "ab",
        [ERROR, ERROR, failed(K.CONTEXT_EXCEEDED)],
        "a b a@100.1",
    ),
    "a refusal of content ends it": ("ab", [failed(K.CONTENT_REFUSED)], "a"),
    "out of time ends it": ("ab", [failed(K.TOTAL_TIMEOUT)], "a"),
    "a bad credential goes on": ("ab", [failed(K.CREDENTIAL_REJECTED), failed(K.QUOTA_EXHAUSTED)], "a b"),
    "an error event goes on": ("ab", [failed(K.TRUNCATED), failed(K.MALFORMED)], "a b"),
}


@pytest.mark.parametrize(("plan", "failures", "steps"), TOURS.values(), ids=TOURS)
def test_tours(plan: str, failures: list[Failure], steps: str) -> None:
    tour = Tour([target(name) for name in plan], POLICY, random.Random(1))
    taken = []
    for failure in failures:
        step = tour.next()
        if step is None:
            break
        taken.append(told(step))
        tour.failed(failure, 100.0)
    assert " ".join(taken) == steps
    assert tour.next() is None


REFUSED = failed(K.CREDENTIAL_REJECTED)


@pytest.mark.parametrize(
    ("failures", "steps"),
    [
        ([REFUSED, REFUSED, REFUSED, DOWN], "a a+ a++ b"),
        ([REFUSED, DOWN, REFUSED, REFUSED, DOWN], "a a+ b b+ b++"),
        ([REFUSED, STALE, PLAIN, REFUSED, REFUSED], "a a+ a!+ a-+ a-++ b"),
        ([REFUSED, ERROR, DOWN, REFUSED, DOWN], "a a+ b a+@100.1 a++"),
    ],
)
def test_a_refused_credential_beside_others_is_cured_first(failures: list[Failure], steps: str) -> None:
    tour = Tour([target("a", 3), target("b", 3)], POLICY, random.Random(1))
    taken = []
    for failure in [*failures, DOWN]:
        step = tour.next()
        if step is not None:
            taken.append(told(step))
            tour.failed(failure, 100.0)
    assert " ".join(taken) == steps


_FAILURES = st.tuples(
    st.sampled_from(list(FailureKind)), st.none() | st.sampled_from([0.0, 0.5, 4.9, 5.0, 5.1, 86400.0])
).map(lambda pair: failed(*pair))


@settings(max_examples=400)
@given(
    plan=st.lists(st.sampled_from("abcd"), min_size=1, max_size=5, unique=True),
    failures=st.lists(_FAILURES, min_size=1, max_size=12),
    seed=st.integers(0, 9),
    credentials=st.integers(0, 3),
)
def test_every_tour_asks_all_ends_and_obeys_the_table(
    plan: list[str], failures: list[Failure], seed: int, credentials: int
) -> None:
    tour = Tour([target(name, credentials) for name in plan], RetryPolicy(), random.Random(seed))
    asked: list[Step] = []
    suffered: list[Failure] = []
    now = 100.0
    while (step := tour.next()) is not None:
        now = max(now, step.not_before)
        asked.append(step)
        suffered.append(failures[len(suffered) % len(failures)])
        tour.failed(suffered[-1], now)
    names = [step.target.model for step in asked]
    first_asked = list(dict.fromkeys(names))
    ended = not suffered[-1].row.next_target
    assert first_asked == plan if not ended else first_asked == plan[: len(first_asked)]

    for number, failure in enumerate(suffered[:-1]):
        cured = asked[number + 1].fresh or asked[number + 1].plain
        assert failure.row.next_target or (cured and names[number + 1] == names[number])

    for name in plan:
        mine = [failure for step, failure in zip(asked, suffered, strict=True) if step.target.model == name]
        again = [failure for failure in mine[:-1] if failure.row.again is Again.NEVER]
        assert again == []
        repeats = [step for step in asked if step.target.model == name and step.repeat]
        waited = [step for step in repeats if not step.fresh and not step.plain and not step.refused]
        assert len(waited) <= RetryPolicy().attempts - 1
        assert sum(failure.row.again is Again.ONCE_WITHOUT for failure in mine[:-1]) <= 1
        refused = sum(failure.row.again is Again.OTHER_CREDENTIAL for failure in mine)
        assert refused <= max(credentials, 1) * RetryPolicy().attempts
        assert len(mine) - refused <= 3 * RetryPolicy().attempts * max(credentials, 1)


def test_a_backoff_at_its_bound_is_still_a_repeat() -> None:
    policy = RetryPolicy(first_s=5.0, factor=2.0, max_s=5.0, jitter=0.25)
    for seed in range(30):
        tour = Tour([target("a")], policy, random.Random(seed))
        tour.next()
        tour.failed(failed(K.SERVER_ERROR), 100.0)
        step = tour.next()
        assert step is not None
        assert 103.75 <= step.not_before <= 106.25


# What the exchange ends with.

VERDICTS: dict[str, tuple[list[Failure], FailureKind, float | None]] = {
    "one": ([failed(K.SERVER_ERROR)], K.SERVER_ERROR, None),
    "the last": ([failed(K.SERVER_ERROR), failed(K.CREDENTIAL_REJECTED)], K.CREDENTIAL_REJECTED, None),
    "throttled by all, the shortest wait": ([slow(9.0), slow(3.0), slow(None)], K.THROTTLED, 3.0),
    "throttled by all, one may be asked at once": ([slow(0.0), slow(3.0)], K.THROTTLED, 0.0),
    "throttled by all, no hint": ([failed(K.THROTTLED)] * 2, K.THROTTLED, None),
    "throttled by one": ([failed(K.THROTTLED, 1.0), failed(K.SERVER_ERROR)], K.SERVER_ERROR, None),
    "out of time everywhere": ([failed(K.CONNECT_TIMEOUT), failed(K.FIRST_EVENT_TIMEOUT)], K.FIRST_EVENT_TIMEOUT, None),
}


@pytest.mark.parametrize(("failures", "kind", "hint_s"), VERDICTS.values(), ids=VERDICTS)
def test_verdicts(failures: list[Failure], kind: FailureKind, hint_s: float | None) -> None:
    found = verdict(failures)
    assert (found.kind, found.retry_after_s) == (kind, hint_s)


@given(failures=st.lists(_FAILURES, min_size=1, max_size=6))
def test_a_verdict_is_429_or_504_only_where_all_are(failures: list[Failure]) -> None:
    found = verdict(failures)
    assert found in failures
    statuses = {TABLE[failure.kind].status for failure in failures}
    assert found.kind is failures[-1].kind or statuses == {429}
