"""Which answers a selector selects, and that selectors and labels come back from their bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.cache_selector import (
    EVERYTHING,
    Labels,
    Selector,
    matches,
    pack,
    pack_labels,
    told,
    unpack,
    unpack_labels,
)
from proxy.core.glob import Glob
from proxy.terms import AccountId, RouteName
from tests.cached_answers import LABELS

SIMPLE, ACME = RouteName("simple"), AccountId("acme")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (EVERYTHING, True),
        (Selector(route=SIMPLE), True),
        (Selector(route=RouteName("simpl")), False),
        (Selector(route=RouteName("simple*")), False),
        (Selector(tag="team=a"), True),
        (Selector(tag="v2"), True),
        (Selector(tag="team"), False),
        (Selector(account=ACME), True),
        (Selector(account=AccountId("other")), False),
        (Selector(pattern=Glob.of("sim*")), True),
        (Selector(pattern=Glob.of("gpt-*")), True),
        (Selector(pattern=Glob.of("openai/*")), True),
        (Selector(pattern=Glob.of("acme")), False),
        (Selector(pattern=Glob.of("team=a")), False),
        (Selector(SIMPLE, "v2", ACME, Glob.of("*4o")), True),
        (Selector(SIMPLE, "v3", ACME, Glob.of("*4o")), False),
        (Selector(SIMPLE, "v2", AccountId("other"), Glob.of("*4o")), False),
        (Selector(RouteName("voice"), "v2", ACME, Glob.of("*4o")), False),
        (Selector(SIMPLE, "v2", ACME, Glob.of("*4")), False),
        (Selector(route=RouteName("")), False),
    ],
)
def test_rows(selector: Selector, expected: bool) -> None:
    assert matches(selector, LABELS) is expected
    assert unpack(pack(selector)) == selector


_TEXT = st.text(st.characters(exclude_categories=[]), max_size=6)
# What a header's bytes become; JSON's own reading of a pair of surrogates as one character is none of it.
_HEADER_TEXT = st.binary(max_size=6).map(lambda data: data.decode("utf-8", "surrogateescape"))


@given(st.builds(Labels, _TEXT, _TEXT, _TEXT, _TEXT, st.lists(_TEXT, max_size=3).map(tuple)))
def test_labels_come_back(labels: Labels) -> None:
    assert unpack_labels(pack_labels(labels)) == labels


_MAYBE = st.none() | _HEADER_TEXT


@given(st.builds(Selector, _MAYBE, _MAYBE, _MAYBE, st.none() | _HEADER_TEXT.map(Glob.of)))
def test_selectors_come_back(selector: Selector) -> None:
    assert unpack(pack(selector)) == selector
    assert json.loads(pack(selector)) == told(selector)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"x",
        b"[]",
        b"null",
        b'{"route":1}',
        b'{"route":null}',
        b'{"model":"a"}',
        b"\xff",
        b"[" * 100_000,
        b'{"tag":["a"]}',
    ],
)
def test_what_is_no_selector_selects_everything(packed: bytes) -> None:
    assert unpack(packed) == EVERYTHING


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}", b'["a","b","c","d"]', b'["a","b","c","d",[1]]', b'["a","b","c",1,[]]', b'["a","b","c","\xc3\xbf",[]]'],
)
def test_what_is_no_labels(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack_labels(packed)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_a_selector(value: Any) -> None:
    assert isinstance(unpack(json.dumps(value).encode()), Selector)
