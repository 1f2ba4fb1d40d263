"""Patterns against a regular expression that is built another way."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.glob import Glob, escape


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "any/thing", True),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "agpt-", False),
        ("*-mini", "gpt-4o-mini", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*a*b*", "xxbxa", False),
        ("*a*b*", "xaxbx", True),
        ("a*bc*c", "abcxbc", True),
        ("a*bc*c", "abc", False),
        ("**", "x", True),
        ("[a-z]?", "b?", False),
        ("[a-z]?", "[a-z]?", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        (r"a\\*", "a\\x", True),
        ("a\\", "a\\", True),
        ("a.c", "abc", False),
        ("a*", "a\nb", True),
    ],
)
def test_rows(pattern: str, name: str, expected: bool) -> None:
    assert Glob.of(pattern).matches(name) is expected


_TEXT = st.text(alphabet="ab*\\", max_size=8)


@given(st.lists(_TEXT, min_size=1, max_size=5), _TEXT)
def test_against_a_regular_expression(parts: list[str], name: str) -> None:
    pattern = Glob.of("*".join(map(escape, parts)))
    assert pattern.matches(name) == bool(re.fullmatch(".*".join(map(re.escape, parts)), name))


@given(st.text(), st.text())
def test_what_is_escaped_matches_itself_alone(name: str, other: str) -> None:
    assert Glob.of(escape(name)).matches(name)
    assert Glob.of(escape(name)).matches(other) == (name == other)


def test_no_pattern_takes_long() -> None:
    began = time.thread_time()
    assert not Glob.of("*a" * 250 + "b").matches("a" * 512 + "c" + "b")
    assert not Glob.of("*" * 500 + "x").matches("a" * 5000)
    assert time.thread_time() - began < 0.05


def test_equal_by_their_text() -> None:
    assert Glob.of("a*") == Glob.of("a*")
    assert len({Glob.of("a*"), Glob.of("a*"), Glob.of("a\\*")}) == 2
