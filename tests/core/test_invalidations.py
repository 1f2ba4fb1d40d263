"""Invalidations against one that keeps them all for ever and looks at each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import invalidations as module
from proxy.core.cache_selector import EVERYTHING, Labels, Selector, matches
from proxy.core.glob import Glob
from proxy.core.invalidations import Invalidations
from proxy.terms import AccountId, Generation, ProviderId, RouteName
from tests.cached_answers import LABELS

ROUTES = [RouteName("r1"), RouteName("r2")]
ACCOUNTS = [AccountId("a1"), AccountId("a2")]
TAGS = ["t1", "t2"]

SELECTORS = st.builds(
    Selector,
    st.none() | st.sampled_from(ROUTES),
    st.none() | st.sampled_from(TAGS),
    st.none() | st.sampled_from(ACCOUNTS),
    st.none() | st.sampled_from(["*1", "m*", "p/*", "nothing"]).map(Glob.of),
)
LABEL_SETS = st.builds(
    Labels,
    st.sampled_from(ROUTES),
    st.sampled_from(ACCOUNTS),
    st.just(ProviderId("p")),
    st.sampled_from(["m1", "m2"]),
    st.lists(st.sampled_from(TAGS), unique=True).map(tuple),
)


def _numbered(selectors: list[Selector]) -> list[tuple[Selector, Generation]]:
    return [(selector, Generation(2 * place + 12)) for place, selector in enumerate(selectors)]


@given(st.lists(SELECTORS, max_size=12), LABEL_SETS, st.integers(0, 40), st.integers(0, 12))
def test_as_if_all_were_kept(selectors: list[Selector], labels: Labels, asked: int, cut: int) -> None:
    news = _numbered(selectors)
    known = Invalidations(Generation(10)).after(news[:cut]).after(news[cut:])
    one_by_one = Invalidations(Generation(10))
    for item in news:
        one_by_one = one_by_one.after([item])
    expected = asked < 10 or any(number > asked and matches(selector, labels) for selector, number in news)
    assert known.covers(labels, Generation(asked)) == expected
    assert one_by_one.covers(labels, Generation(asked)) == expected
    assert known.head == one_by_one.head == (news[-1][1] if news else 10)
    assert known.after([]).head == known.head
    assert known.after(news).covers(labels, Generation(asked)) == expected  # heard twice


@pytest.mark.parametrize(("most", "compound_most"), [(3, 3), (5, 2), (5, 0)])
@given(selectors=st.lists(SELECTORS, max_size=12), labels=LABEL_SETS, asked=st.integers(0, 40))
def test_with_too_many_too_much_is_stale_and_never_too_little(
    most: int, compound_most: int, selectors: list[Selector], labels: Labels, asked: int
) -> None:
    news = _numbered(selectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SELECTORS_MAX", most)
        patch.setattr(module, "COMPOUND_MAX", compound_most)
        known = Invalidations(Generation(10))
        for item in news:
            known = known.after([item])
            assert len(known) <= most
            assert len(known._compound) <= compound_most
        assert not Invalidations(Generation(10)).after(news).covers(labels, known.head)
    assert known.head == (news[-1][1] if news else 10)
    if any(number > asked and matches(selector, labels) for selector, number in news):
        assert known.covers(labels, Generation(asked))
    assert not known.covers(labels, known.head)
    distinct = {selector for selector, number in news if number > asked}
    if len(distinct) <= compound_most and asked >= 10:
        assert known.covers(labels, Generation(asked)) == any(matches(selector, labels) for selector in distinct)


def test_everything_leaves_nothing_to_remember() -> None:
    known = Invalidations(Generation(1)).after(
        [(Selector(route=ROUTES[0]), Generation(2)), (EVERYTHING, Generation(3))]
    )
    assert (known.floor, known.head, len(known)) == (3, 3, 0)


def test_a_floor_from_elsewhere() -> None:
    known = Invalidations(Generation(1)).after([(Selector(tag="v2"), Generation(5))])
    assert not known.covers(LABELS, Generation(5))
    known = known.after([], Generation(6))
    assert known.covers(LABELS, Generation(5))
    assert not known.covers(LABELS, Generation(6))
    assert known.after([], Generation(2)).floor == 6
